package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

var (
	kindID    = kind{shape: textOrInt, check: checkID, what: "a number"}
	kindOctal = kind{shape: textOrInt, check: checkOctal, what: "a file mode, such as 0440"}
)

// checkID wants a number: the names of users are the image's.
func checkID(v string) error {
	if within("", 0, 1<<31-1)(v) != nil {
		return refuse("Write the number that the image's /etc/passwd or /etc/group has for the name", "%q isn't a whole number from 0 to %d", clip(v), 1<<31-1)
	}
	return nil
}

const (
	// maxConfig is about Docker's bound (1000 KiB): a config is kept in every
	// release that has it.
	maxConfig         = 1 << 20
	defaultConfigMode = 0o444
)

var octal = regexp.MustCompile(`^0o?[0-7]{1,4}$`)

// parseOctal reads what checkOctal has let pass.
func parseOctal(v string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimPrefix(v, "0o"), 8, 32)
	return n
}

// checkOctal wants the leading zero: 440 is decimal to YAML.
func checkOctal(v string) error {
	if !octal.MatchString(v) {
		return refuse("Write it with its leading 0, such as 0440", "%q isn't an octal file mode", clip(v))
	}
	return nil
}

// files are the configs of a service, with what stands in them.
func (c *converter) files(name string, in types.ServiceConfig) []spec.File {
	var out []spec.File
	for _, f := range in.Configs {
		target := configTarget(f.Source, f.Target)
		at, where := c.whereItem(c.configAt(target), "services", name, "configs")
		cfg, ok := c.in.Configs[f.Source]
		if !ok {
			c.fail(at, where, refuse("Declare it under configs: at the top level", "the config %q isn't declared", f.Source))
			continue
		}
		c.usedConfigs[f.Source] = true
		if why := spec.CheckFileTarget(target); why != "" {
			c.fail(at, where, refuse("Give it another target", "%s of the container can't be a config's file: %s", clip(target), why))
		}
		out = append(out, c.file(f, target, c.content(f.Source, cfg)))
	}
	slices.SortStableFunc(out, func(a, b spec.File) int { return cmp.Compare(a.Target, b.Target) })
	return out
}

func configTarget(source, target string) string { return path.Join("/", cmp.Or(target, source)) }

// configAt matches an item of a service's configs by its target.
func (c *converter) configAt(target string) func(string, *tree) bool {
	return func(v string, t *tree) bool { return c.itemTarget(v, t, configTarget) == target }
}

// file is a config in a container. With secrets in it, it is one: only the
// container's user reads it, unless something else is written.
func (c *converter) file(f types.ServiceConfigObjConfig, target string, content []byte) spec.File {
	file := spec.File{Target: target, Content: content, Mode: defaultConfigMode, UID: owner(f.UID), GID: owner(f.GID)}
	for _, name := range spec.TemplateNames(content) {
		file.Template, file.Mode = true, defaultSecretMode
		var p *problem
		if err := checkSecretName(name); !errors.As(err, &p) {
			p = c.useSecret(name, true, "configs", f.Source)
		}
		if p != nil {
			c.failAt(p, "configs", f.Source)
		}
	}
	if f.Mode != nil {
		file.Mode = uint32(*f.Mode)
	}
	if !file.Template {
		file.UID, file.GID = notRoot(file.UID), notRoot(file.GID)
	}
	return file
}

// notRoot leaves out 0, which releases without templates have never had.
func notRoot(id *uint32) *uint32 {
	if id != nil && *id == 0 {
		return nil
	}
	return id
}

// checkTargets refuses what can't stand at its place in the container.
func (c *converter) checkTargets(name string, box spec.Container) {
	standing := map[string][]string{} // what stands at a target, in the order of Crossings
	for _, m := range box.Mounts {
		standing[m.Target] = append(standing[m.Target], "mount")
	}
	for _, s := range box.Secrets {
		standing[s.Target] = append(standing[s.Target], "secret")
	}
	for _, f := range box.Files {
		standing[f.Target] = append(standing[f.Target], "config")
	}
	for _, pair := range box.Crossings() {
		first, second := pair[0], pair[1]
		kinds := standing[second]
		var p *problem
		switch {
		case first == second:
			p = refuse("Give it another target", "a %s stands at %s already", kinds[0], first)
		case strings.HasPrefix(second, first+"/"):
			p = refuse("Give it another target", "the %s at %s is a file, below which nothing can stand", standing[first][0], first)
		default:
			p = refuse("Give it another target", "the service's secrets stand in %s, which is a directory of its own, where nothing else can stand", spec.SecretDir)
		}
		switch kinds[len(kinds)-1] {
		case "mount":
			c.failMount(name, spec.Mount{Target: second}, p)
		case "secret":
			at, where := c.whereItem(c.secretAt(second), "services", name, "secrets")
			c.fail(at, where, p)
		default:
			at, where := c.whereItem(c.configAt(second), "services", name, "configs")
			c.fail(at, where, p)
		}
	}
}

// content reads a config once.
func (c *converter) content(name string, cfg types.ConfigObjConfig) []byte {
	if data, ok := c.contents[name]; ok {
		return data
	}
	data, p := c.readConfig(name, cfg)
	if p == nil && (!utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0) {
		p = refuse("Bind-mount the file read-only instead", "the config isn't UTF-8 text")
	}
	if p == nil && len(data) > maxConfig {
		p = refuse("Bind-mount the file read-only instead", "the config has %d bytes, more than 1 MiB", len(data))
	}
	if p != nil {
		c.failAt(p, "configs", name)
	} else {
		c.checkPlaces(name, cfg, data)
	}
	c.contents[name] = data
	return data
}

// checkPlaces refuses what was meant as a place for a secret and would be
// delivered as it stands.
func (c *converter) checkPlaces(name string, cfg types.ConfigObjConfig, content []byte) {
	of := "its content"
	if cfg.File != "" {
		of = cfg.File
	}
	for _, line := range spec.FaultyPlaces(content) {
		c.failAt(refuse(`Write {{ secret "NAME" }}, with nothing else between the braces; a file with a template language of its own can be bind-mounted read-only`,
			"line %d of %s has {{ secret in a form that isn't known", line, of), "configs", name)
	}
}

func (c *converter) readConfig(name string, cfg types.ConfigObjConfig) ([]byte, *problem) {
	var sources []string
	for _, key := range []string{"file", "content", "environment"} {
		if c.written("configs", name, key) {
			sources = append(sources, key)
		}
	}
	switch {
	case len(sources) != 1:
		return nil, refuse("Write one of them", "a config has one of file, content and environment, not %d", len(sources))
	case cfg.Environment != "":
		v, ok := c.envOf("configs", name)[cfg.Environment]
		if !ok {
			return nil, refuse("Set it in the environment or in .env", "the variable %s isn't set", cfg.Environment)
		}
		return []byte(v), nil
	case cfg.File != "":
		data, err := readRegular(absolute(c.dir, filepath.Clean(cfg.File)))
		if err != nil {
			return nil, refuse("Correct or create the file", "the config can't be read: %s", err)
		}
		return data, nil
	}
	return []byte(cfg.Content), nil
}

// written reports whether one of the files has the key.
func (c *converter) written(path ...string) bool {
	return slices.ContainsFunc(c.layers, func(l *layer) bool { _, _, ok := l.root.find(path...); return ok })
}

// envOf is the environment of the file that says where a config or a secret
// comes from: an included one may have its own.
func (c *converter) envOf(kind, name string) map[string]string {
	for _, l := range slices.Backward(c.layers) {
		if _, _, ok := l.root.find(kind, name, "environment"); ok && l.env != nil {
			return l.env
		}
	}
	return c.env
}

// unusedConfigs warns as for networks and volumes, and notes labels.
func (c *converter) unusedConfigs() {
	for _, name := range sorted(c.in.Configs) {
		if !c.usedConfigs[name] {
			c.report.warn("config %s is used by no service, so it isn't read", name)
		}
		c.noteLabels("config "+name, len(c.in.Configs[name].Labels))
	}
}

// noteLabels: only containers carry labels.
func (c *converter) noteLabels(of string, n int) {
	if n > 0 {
		c.report.note("%s: its labels stand in the file only; containers carry labels, nothing else does", of)
	}
}

type composeConfig struct {
	Content string `yaml:"content"`
}

// composeFileMount is a config or a secret of a service.
type composeFileMount struct {
	Source string `yaml:"source"`
	Target string `yaml:"target"`
	UID    string `yaml:"uid,omitempty"`
	GID    string `yaml:"gid,omitempty"`
	Mode   string `yaml:"mode"`
}

// encodeFiles writes each file as a config of its own.
func encodeFiles(out *composeFile, service string, files []spec.File) []composeFileMount {
	var list []composeFileMount
	for i, f := range files {
		name := fmt.Sprintf("%s-%d", service, i+1)
		out.Configs = append(out.Configs, pair[composeConfig]{name, composeConfig{string(f.Content)}})
		mount := composeFileMount{Source: name, Target: f.Target, UID: number32(f.UID), GID: number32(f.GID), Mode: fmt.Sprintf("%#o", f.Mode)}
		if !f.Template {
			mount.UID, mount.GID = cmp.Or(mount.UID, "0"), cmp.Or(mount.GID, "0")
		}
		list = append(list, mount)
	}
	return list
}
