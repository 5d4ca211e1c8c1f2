package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dunnage/spec"
)

type composeSecret struct {
	External    bool                    `yaml:"external,omitempty"`
	Name        string                  `yaml:"name,omitempty"`
	File        string                  `yaml:"file,omitempty"`
	Environment string                  `yaml:"environment,omitempty"`
	Dunnage     *composeSecretExtension `yaml:"x-dunnage,omitempty"`
}

type composeSecretExtension struct {
	Optional bool `yaml:"optional"`
}

// encodeDeclarations writes the secrets that the services of out use.
func encodeDeclarations(out *composeFile, p spec.Project) {
	used := map[string]bool{}
	for _, s := range p.Services {
		for _, name := range s.Container.SecretNames() {
			used[name] = used[name] || !s.Orphan
		}
	}
	for _, d := range p.Secrets {
		if !used[d.Name] {
			continue
		}
		s := composeSecret{External: d.Origin == spec.OriginSet, File: d.File, Environment: d.Environment}
		if d.Store != d.Name {
			s.Name = d.Store
		}
		if d.Optional {
			s.Dunnage = &composeSecretExtension{true}
		}
		out.Secrets = append(out.Secrets, pair[composeSecret]{d.Name, s})
	}
}

// encodeSecrets writes how a service uses its secrets; those of templates stand
// in the configs.
func encodeSecrets(out *composeService, s spec.Service) {
	var vars ordered[string]
	for _, x := range s.Container.Secrets {
		if x.Env != "" {
			vars = append(vars, pair[string]{x.Env, x.Name})
		}
		if x.Target != "" {
			out.Secrets = append(out.Secrets, composeFileMount{
				Source: x.Name, Target: x.Target, UID: number32(x.UID), GID: number32(x.GID), Mode: fmt.Sprintf("%#04o", cmp.Or(x.Mode, defaultSecretMode)),
			})
		}
	}
	slices.SortFunc(vars, func(a, b pair[string]) int { return cmp.Compare(a.key, b.key) })
	out.Dunnage.SecretEnv = vars
	switch on := s.OnSecretChange; {
	case on.Signal() != "":
		out.Dunnage.OnSecretChange = "signal:" + strings.TrimPrefix(on.Signal(), "SIG")
	case on.Live():
		out.Dunnage.OnSecretChange = string(on)
	}
}

// number32 is empty for nil.
func number32(n *uint32) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}
