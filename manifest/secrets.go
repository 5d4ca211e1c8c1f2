package manifest

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
	"golang.org/x/sys/unix"
)

var (
	kindSecretName     = kind{shape: shapeText, check: checkSecretName}
	kindSecretMode     = kind{shape: textOrInt, check: checkSecretMode, what: "a file mode, such as 0440"}
	kindOnSecretChange = kind{shape: shapeText, check: checkOnSecretChange}
)

const defaultSecretMode = 0o400

func checkSecretName(v string) error {
	if spec.CheckSecretName(v) != nil {
		return refuse("Use at most 128 letters, digits, -, _ and ., the first a letter or digit", "%q isn't the name of a secret", clip(v))
	}
	return nil
}

// checkSecretMode wants permission bits, and some: Mode 0 is the default.
func checkSecretMode(v string) error {
	if err := checkOctal(v); err != nil {
		return err
	}
	if n := parseOctal(v); n == 0 || n > 0o777 {
		return refuse("Write one from 0001 to 0777", "%q isn't the mode of a secret", clip(v))
	}
	return nil
}

// checkSecretVariable judges a key of secret_env.
func checkSecretVariable(name string) error {
	if spec.CheckVariable(name) != nil {
		return refuse("Use letters, digits and _, no digit first", "%q can't be a variable's name", clip(name))
	}
	return nil
}

func checkOnSecretChange(v string) error { _, err := parseOnSecretChange(v); return err }

func parseOnSecretChange(v string) (spec.OnSecretChange, error) {
	name, signals := strings.CutPrefix(v, "signal:")
	switch {
	case v == "restart":
		return spec.SecretRestart, nil
	case v == "none":
		return spec.SecretNone, nil
	case !signals:
		return "", refuse("", "%q isn't one of restart, none and signal:NAME, such as signal:HUP", clip(v))
	}
	sig, err := parseSignal(name)
	switch {
	case err != nil:
		return "", refuse("Known: "+strings.Join(signalNames(), ", "), "%q isn't a signal", clip(name))
	case sig == "SIGKILL" || sig == "SIGSTOP":
		return "", refuse("Write restart, or a signal that the program reads its files at", "no program hears %s", sig)
	}
	return spec.OnSecretChange(sig), nil
}

// signalNames are the signals that a program can hear, but for the real-time ones.
func signalNames() (names []string) {
	for n := unix.Signal(1); n < 32; n++ {
		if n != unix.SIGKILL && n != unix.SIGSTOP {
			names = append(names, strings.TrimPrefix(unix.SignalName(n), "SIG"))
		}
	}
	return names
}

func secretTarget(source, target string) string {
	target = cmp.Or(target, source)
	if path.IsAbs(target) {
		return path.Clean(target)
	}
	return path.Join(spec.SecretDir, target)
}

// useSecret notes that a service uses the secret. One that isn't declared is an
// external one where implicit says so; at is the key that uses it.
func (c *converter) useSecret(name string, implicit bool, at ...string) *problem {
	if _, ok := c.in.Secrets[name]; !ok && !implicit && !c.report.below("secrets."+name) {
		return refuse("Declare it under secrets: at the top level", "the secret %q isn't declared", name)
	}
	c.usedSecrets[name] = true
	if _, ok := c.in.Secrets[name]; ok {
		at = []string{"secrets", name}
	}
	if _, ok := c.secretPlaces[name]; !ok {
		c.secretPlaces[name] = fmt.Sprintf("%s: %s", c.where(at...), dotted(at))
	}
	return nil
}

// secretFiles are the service's secrets as files.
func (c *converter) secretFiles(name string, in types.ServiceConfig) []spec.Secret {
	var out []spec.Secret
	for _, s := range in.Secrets {
		target := secretTarget(s.Source, s.Target)
		at, where := c.whereItem(c.secretAt(target), "services", name, "secrets")
		p := c.useSecret(s.Source, false, "services", name, "secrets")
		switch {
		case p != nil:
		case spec.CheckFileTarget(target) != "":
			p = refuse("Give it another target", "%s of the container can't be a secret's file: %s", clip(target), spec.CheckFileTarget(target))
		case optionalSecret(c.in.Secrets[s.Source]) && !spec.InSecretDir(target):
			p = refuse("Give it a target below "+spec.SecretDir, "the secret may be absent, and then nothing could be mounted at %s", target)
		}
		if p != nil {
			c.fail(at, where, p)
			continue
		}
		file := spec.Secret{Name: s.Source, Target: target, UID: owner(s.UID), GID: owner(s.GID), Mode: defaultSecretMode}
		if s.Mode != nil {
			file.Mode = uint32(*s.Mode)
		}
		out = append(out, file)
	}
	return out
}

// optionalSecret reports whether the secret may be absent from the store.
func optionalSecret(s types.SecretConfig) bool {
	x, _ := s.Extensions["x-dunnage"].(map[string]any)
	optional, _ := x["optional"].(bool)
	return optional
}

// secretAt matches an item of a service's secrets by its target.
func (c *converter) secretAt(target string) func(string, *tree) bool {
	return func(v string, t *tree) bool { return c.itemTarget(v, t, secretTarget) == target }
}

// itemTarget is the target of an item of secrets or configs in either form.
func (c *converter) itemTarget(v string, t *tree, target func(source, target string) string) string {
	var at string
	if e := t.get("source"); e != nil {
		v = c.text(e.val)
	}
	if e := t.get("target"); e != nil {
		at = c.text(e.val)
	}
	return target(v, at)
}

// owner is a number that the walk has checked; nil where there is none.
func owner(v string) *uint32 {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return nil
	}
	return new(uint32(n))
}

// secretVariables are the service's secrets as environment variables.
func (c *converter) secretVariables(name string, in types.ServiceConfig, environment []string) []spec.Secret {
	m, _ := in.Extensions["x-dunnage"].(map[string]any)
	vars, _ := m["secret_env"].(map[string]any)
	var out []spec.Secret
	for _, v := range sorted(vars) {
		secret := text(vars[v])
		at := []string{"services", name, "x-dunnage", "secret_env", v}
		if p := c.useSecret(secret, true, at...); p != nil {
			c.failAt(p, at...)
		}
		_, written := in.Environment[v]
		if written || slices.ContainsFunc(environment, func(e string) bool { return strings.HasPrefix(e, v+"=") }) {
			c.failAt(refuse("Remove it from environment and env_file", "the variable %s stands in the service's environment too, where its value would stand in clear in containerd's database", v), at...)
		}
		out = append(out, spec.Secret{Name: secret, Env: v})
	}
	return out
}

// templateSecrets are the secrets that the service's configs have places for.
func templateSecrets(files []spec.File) []spec.Secret {
	var out []spec.Secret
	for _, f := range files {
		if !f.Template {
			continue
		}
		for _, name := range spec.TemplateNames(f.Content) {
			if s := (spec.Secret{Name: name}); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

func compareSecrets(a, b spec.Secret) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Env, b.Env))
}

// onSecretChange refuses what can't be done with the service's secrets.
func (c *converter) onSecretChange(name string, in types.ServiceConfig, box spec.Container) spec.OnSecretChange {
	m, _ := in.Extensions["x-dunnage"].(map[string]any)
	if m["on_secret_change"] == nil {
		return spec.SecretRestart
	}
	on, _ := parseOnSecretChange(text(m["on_secret_change"])) // checked by the walk
	switch fixed := box.Fixed(); {
	case len(box.Secrets) == 0:
		c.report.note("%s: on_secret_change has no effect: the service has no secrets", name)
	case on.Live() && fixed != "":
		c.failAt(refuse("Write restart", "%s", fixed), "services", name, "x-dunnage", "on_secret_change")
	}
	return on
}

// declaredSecrets are the secrets that services use. It reads the values that
// the manifest brings and warns of secrets that nobody uses.
func (c *converter) declaredSecrets() []spec.SecretDeclaration {
	var out []spec.SecretDeclaration
	for _, name := range sorted(c.in.Secrets) {
		d, ok := c.declaredSecret(name, c.in.Secrets[name])
		if ok && c.usedSecrets[name] {
			out = append(out, d)
			c.readSecret(d)
		}
	}
	for name := range c.usedSecrets {
		if _, declared := c.in.Secrets[name]; !declared {
			out = append(out, spec.SecretDeclaration{Name: name, Store: name})
		}
	}
	slices.SortFunc(out, func(a, b spec.SecretDeclaration) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (c *converter) declaredSecret(name string, s types.SecretConfig) (spec.SecretDeclaration, bool) {
	d := spec.SecretDeclaration{Name: name, Store: name, Environment: s.Environment}
	if s.File != "" {
		d.File = absolute(c.dir, filepath.Clean(s.File))
	}
	if !c.usedSecrets[name] {
		c.report.warn("secret %s is used by no service", name)
	}
	c.noteLabels("secret "+name, len(s.Labels))
	if c.report.below("secrets." + name) {
		return d, false
	}
	sources := 0
	for _, there := range []bool{bool(s.External), s.File != "", s.Environment != ""} {
		if there {
			sources++
		}
	}
	if sources != 1 {
		c.failAt(refuse("Write one of them", "a secret has one of external, file and environment, not %d", sources), "secrets", name)
		return d, false
	}
	d.Optional = optionalSecret(s)
	switch {
	case bool(s.External):
		d.Store = s.Name
		return d, true
	case d.Optional:
		c.failAt(refuse("Remove it", "only an external secret may be absent: this one comes with the manifest"), "secrets", name, "x-dunnage", "optional")
	case c.written("secrets", name, "name"):
		c.report.note("secret %s: name has no effect without external: true; the secret is the project's own", name)
	}
	d.Origin = spec.OriginManifest
	return d, true
}
