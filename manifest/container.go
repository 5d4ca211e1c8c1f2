package manifest

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// defaultGrace is Compose's.
const defaultGrace = 10 * time.Second

func (c *converter) container(name string, in types.ServiceConfig) spec.Container {
	box := spec.Container{
		ContainerName: in.ContainerName,
		Entrypoint:    in.Entrypoint,
		Command:       in.Command,
		Environment:   c.environ(name, in),
		Hostname:      in.Hostname,
		User:          in.User,
		WorkingDir:    in.WorkingDir,
		CapAdd:        capNames(in.CapAdd),
		CapDrop:       capNames(in.CapDrop),
		ReadOnly:      in.ReadOnly,
		Mounts:        c.mounts(name, in),
		ShmSize:       int64(in.ShmSize),
		Ulimits:       c.ulimits(name, in.Ulimits),
		StopGrace:     spec.Duration(defaultGrace),
		Networks:      c.attachments(name, in),
		Expose:        exposed(in.Expose),
		Platform:      in.Platform,
	}
	if labels := c.labels(name, in); len(labels) > 0 {
		box.Labels = labels
	}
	if in.StopSignal != "" {
		box.StopSignal, _ = parseSignal(in.StopSignal) // checked by the walk
	}
	if in.StopGracePeriod != nil {
		box.StopGrace = spec.Duration(*in.StopGracePeriod)
	}
	c.networkMode(name, in, &box)
	c.confinement(name, in, &box)
	resolution(in, &box)
	box.Files = c.files(name, in)
	box.Secrets = slices.Concat(c.secretFiles(name, in), c.secretVariables(name, in, box.Environment), templateSecrets(box.Files))
	slices.SortFunc(box.Secrets, compareSecrets)
	c.checkTargets(name, box)
	return box
}

// capNames normalises capabilities, which the walk has checked.
func capNames(in []string) []string {
	var out []string
	for _, v := range in {
		name, _ := parseCapability(v)
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (c *converter) ulimits(name string, in map[string]*types.UlimitsConfig) []spec.Ulimit {
	var out []spec.Ulimit
	for _, n := range sorted(in) {
		u := spec.Ulimit{Name: n, Soft: int64(in[n].Soft), Hard: int64(in[n].Hard)}
		if in[n].Single != 0 {
			u.Soft, u.Hard = int64(in[n].Single), int64(in[n].Single)
		}
		if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
			c.failAt(refuse("Raise hard or lower soft", "the soft limit %d is above the hard limit %d", u.Soft, u.Hard), "services", name, "ulimits", n)
		}
		out = append(out, u)
	}
	return out
}

func exposed(in []string) []spec.PortProto {
	var out []spec.PortProto
	for _, v := range in {
		ports, _ := parseExpose(v) // checked by the walk
		out = append(out, ports...)
	}
	slices.SortFunc(out, func(a, b spec.PortProto) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return slices.Compact(out)
}

func (c *converter) attachments(name string, in types.ServiceConfig) []spec.Attachment {
	out := []spec.Attachment{}
	if in.NetworkMode == "bridge" || in.NetworkMode == "default" {
		return append(out, c.defaultNetwork())
	}
	for _, n := range sorted(in.Networks) {
		if _, ok := c.in.Networks[n]; !ok {
			at, path := c.whereItem(func(v string, _ *tree) bool { return v == n }, "services", name, "networks")
			c.fail(at, path, refuse("Declare it under networks: at the top level", "the network %q isn't declared", n))
			continue
		}
		c.usedNets[n] = true
		a := spec.Attachment{Name: n}
		if cfg := in.Networks[n]; cfg != nil {
			a.Aliases = slices.Compact(slices.Sorted(slices.Values(cfg.Aliases)))
		}
		out = append(out, a)
	}
	return out
}

// mounts are volumes and tmpfs together, by target.
func (c *converter) mounts(name string, in types.ServiceConfig) []spec.Mount {
	var out []spec.Mount
	for _, v := range in.Volumes {
		m, p := c.mount(v)
		if p != nil {
			c.failMount(name, m, p)
			continue
		}
		out = append(out, m)
	}
	for _, v := range in.Tmpfs {
		m, _ := parseTmpfs(v) // checked by the walk
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b spec.Mount) int { return cmp.Compare(a.Target, b.Target) })
	for i, m := range out {
		switch {
		case m.Target == "/":
			c.failMount(name, m, refuse("Mount a directory below it", "nothing can be mounted over / of the container"))
		case strings.HasPrefix(m.Target+"/", spec.OwnPrefix):
			c.failMount(name, m, refuse("Give it another target", "names that begin with .dunnage- are dunnage's own"))
		case i > 0 && out[i-1].Target == m.Target:
			c.failMount(name, m, refuse("Remove one of them", "two mounts stand at %s", m.Target))
		}
	}
	return out
}

func (c *converter) failMount(name string, m spec.Mount, p *problem) {
	at, path := c.whereItem(mountsAt(m.Target), "services", name, "volumes")
	c.fail(at, path, p)
}

// mountsAt matches an item of volumes by its target.
func mountsAt(target string) func(string, *tree) bool {
	return func(v string, t *tree) bool {
		if e := t.get("target"); e != nil {
			return filepath.Clean(e.val.value) == target
		}
		it, _ := parseVolumeItem(v)
		return filepath.Clean(it.target) == target
	}
}

// environ resolves env_file and environment, the latter going first.
func (c *converter) environ(name string, in types.ServiceConfig) []string {
	env := in.Environment.Resolve(func(k string) (string, bool) { v, ok := c.env[k]; return v, ok })
	vars := map[string]string{}
	for _, f := range in.EnvFiles {
		c.addEnvFile(name, f, env, vars)
	}
	for k, v := range env {
		if v == nil {
			delete(vars, k)
			continue
		}
		vars[k] = *v
	}
	var out []string
	for _, k := range sorted(vars) {
		if !utf8.ValidString(vars[k]) || !utf8.ValidString(k) {
			c.failAt(refuse("Encode it, for example with base64", "the value of %q isn't UTF-8 text", k), "services", name)
			continue
		}
		out = append(out, k+"="+vars[k])
	}
	return out
}

// addEnvFile reads one file into vars; a later one goes before an earlier.
func (c *converter) addEnvFile(name string, f types.EnvFile, env types.MappingWithEquals, vars map[string]string) {
	lookup := func(k string) (string, bool) {
		if v, ok := c.env[k]; ok {
			return v, true
		}
		if v := env[k]; v != nil {
			return *v, true
		}
		v, ok := vars[k]
		return v, ok
	}
	read, err := c.envFiles.read(f.Path, f.Format, lookup)
	if err != nil && missing(err) && !bool(f.Required) {
		return
	}
	if err != nil {
		c.failFile(name, "env_file", f.Path, refuse("Correct or create the file; required: false makes it optional", "the env file can't be read: %s", err))
		return
	}
	maps.Copy(vars, read)
}

// labels are those of label_file under those of labels.
func (c *converter) labels(name string, in types.ServiceConfig) map[string]string {
	out := map[string]string{}
	for _, path := range in.LabelFiles {
		read, err := c.envFiles.read(path, "", func(k string) (string, bool) { v, ok := out[k]; return v, ok })
		if err != nil {
			c.failFile(name, "label_file", path, refuse("Correct or create the file", "the label file can't be read: %s", err))
			continue
		}
		maps.Copy(out, read)
	}
	maps.Copy(out, in.Labels)
	return out
}

// failFile reports a problem of a file at the item that names it.
func (c *converter) failFile(service, key, file string, p *problem) {
	at, path := c.whereItem(func(v string, t *tree) bool {
		if e := t.get("path"); e != nil {
			v = c.text(e.val)
		}
		return absolute(c.dir, v) == filepath.Clean(file)
	}, "services", service, key)
	c.fail(at, path, p)
}
