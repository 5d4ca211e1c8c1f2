package manifest

import (
	"cmp"
	"path"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// secretDir is where Compose puts secrets with a relative target, or none.
const secretDir = "/run/secrets"

func secretTarget(source, target string) string {
	target = cmp.Or(target, source)
	if path.IsAbs(target) {
		return path.Clean(target)
	}
	return path.Join(secretDir, target)
}

// secrets are read-only bind mounts of their files, as Compose makes them: what
// stands in the files is neither read nor kept.
func (c *converter) secrets(name string, in types.ServiceConfig) []spec.Mount {
	var out []spec.Mount
	for _, s := range in.Secrets {
		at, where := c.whereItem(func(v string, t *tree) bool {
			if e := t.get("source"); e != nil {
				v = c.text(e.val)
			}
			return v == s.Source
		}, "services", name, "secrets")
		declared, ok := c.in.Secrets[s.Source]
		if !ok {
			c.fail(at, where, refuse("Declare it under secrets: at the top level", "the secret %q isn't declared", s.Source))
			continue
		}
		target := secretTarget(s.Source, s.Target)
		if target == "/" {
			c.fail(at, where, refuse("Name the file", "nothing can be mounted over / of the container"))
			continue
		}
		c.usedSecrets[s.Source] = true
		if s.UID != "" || s.GID != "" || s.Mode != nil {
			c.report.note("%s: uid, gid and mode of the secret %s have no effect, as in Compose: its file is mounted as it is", name, s.Source)
		}
		out = append(out, spec.Mount{
			Type: spec.MountBind, Source: absolute(c.dir, declared.File), Target: target, ReadOnly: true,
		})
	}
	return out
}

// declaredSecrets refuses those without a file, warns of those that nobody uses
// and notes labels.
func (c *converter) declaredSecrets() {
	for _, name := range sorted(c.in.Secrets) {
		s := c.in.Secrets[name]
		if s.File == "" && !c.report.below("secrets."+name) {
			c.failAt(refuse("Add file:", "the secret has no file"), "secrets", name)
		}
		if !c.usedSecrets[name] {
			c.report.warn("secret %s is used by no service", name)
		}
		c.noteLabels("secret "+name, len(s.Labels))
	}
}
