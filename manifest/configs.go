package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"unicode/utf8"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

var (
	kindID    = kind{shape: textOrInt, check: within("the number", 0, 1<<31-1), what: "a number"}
	kindOctal = kind{shape: textOrInt, check: checkOctal, what: "a file mode, such as 0440"}
)

const (
	// maxConfig is about Docker's bound (1000 KiB): a config is kept in every
	// release that has it.
	maxConfig         = 1 << 20
	defaultConfigMode = 0o444
)

var octal = regexp.MustCompile(`^0o?[0-7]{1,4}$`)

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
		at, where := c.whereItem(func(v string, t *tree) bool {
			if e := t.get("source"); e != nil {
				v = c.text(e.val)
			}
			return v == f.Source
		}, "services", name, "configs")
		cfg, ok := c.in.Configs[f.Source]
		if !ok {
			c.fail(at, where, refuse("Declare it under configs: at the top level", "the config %q isn't declared", f.Source))
			continue
		}
		c.usedConfigs[f.Source] = true
		file := spec.File{Target: path.Join("/", cmp.Or(f.Target, f.Source)), Content: c.content(f.Source, cfg), Mode: defaultConfigMode}
		if file.Target == "/" {
			c.fail(at, where, refuse("Name the file", "nothing can be mounted over / of the container"))
		}
		uid, _ := strconv.ParseUint(cmp.Or(f.UID, "0"), 10, 32) // checked by the walk
		gid, _ := strconv.ParseUint(cmp.Or(f.GID, "0"), 10, 32)
		file.UID, file.GID = uint32(uid), uint32(gid)
		if f.Mode != nil {
			file.Mode = uint32(*f.Mode)
		}
		out = append(out, file)
	}
	slices.SortStableFunc(out, func(a, b spec.File) int { return cmp.Compare(a.Target, b.Target) })
	return out
}

// checkTargets refuses a config at the place of another one or of a mount.
func (c *converter) checkTargets(name string, box spec.Container) {
	taken := map[string]string{}
	for _, m := range box.Mounts {
		taken[m.Target] = "a mount"
	}
	for _, f := range box.Files {
		if by := taken[f.Target]; by != "" {
			c.failAt(refuse("Give it another target", "%s stands at %s already", by, f.Target), "services", name, "configs")
		}
		taken[f.Target] = "a config"
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
	}
	c.contents[name] = data
	return data
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
		v, ok := c.env[cfg.Environment]
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

type composeConfigFile struct {
	Source string `yaml:"source"`
	Target string `yaml:"target"`
	UID    string `yaml:"uid"`
	GID    string `yaml:"gid"`
	Mode   string `yaml:"mode"`
}

// encodeFiles writes each file as a config of its own.
func encodeFiles(out *composeFile, service string, files []spec.File) []composeConfigFile {
	var list []composeConfigFile
	for i, f := range files {
		name := fmt.Sprintf("%s-%d", service, i+1)
		out.Configs = append(out.Configs, pair[composeConfig]{name, composeConfig{string(f.Content)}})
		list = append(list, composeConfigFile{
			Source: name, Target: f.Target, UID: fmt.Sprint(f.UID), GID: fmt.Sprint(f.GID), Mode: fmt.Sprintf("%#o", f.Mode),
		})
	}
	return list
}
