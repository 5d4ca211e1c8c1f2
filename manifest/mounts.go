package manifest

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// volumeOptions are the options of the short form.
var volumeOptions = []string{
	"ro", "rw", "nocopy", "z", "Z", "cached", "delegated", "consistent",
	"private", "rprivate", "shared", "rshared", "slave", "rslave",
}

func checkVolumeItem(v string) error { _, err := parseVolumeItem(v); return err }

// volumeItem is the short form, split.
type volumeItem struct {
	source, target string
	options        []string
}

func parseVolumeItem(v string) (volumeItem, error) {
	parts := strings.Split(v, ":")
	var it volumeItem
	switch len(parts) {
	case 1:
		it.target = parts[0]
	case 2:
		it.source, it.target = parts[0], parts[1]
	case 3:
		it.source, it.target, it.options = parts[0], parts[1], strings.Split(parts[2], ",")
	default:
		return it, refuse("Use the long form with source: and target:", "%q has too many colons for [SOURCE:]TARGET[:OPTIONS]", clip(v))
	}
	if len(parts) > 1 && it.source == "" {
		return it, refuse("Name a directory or a volume before the colon", "%q has no source", clip(v))
	}
	for _, o := range it.options {
		if !slices.Contains(volumeOptions, o) {
			return it, refuse("Use "+strings.Join(volumeOptions, ", "), "%q isn't a volume option", clip(o))
		}
	}
	if len(it.source) == 1 && identifier.MatchString(it.source) {
		return it, refuse("Use the long form with source: and target:", "%q would be read as a drive letter", it.source)
	}
	return it, checkAbsolute(it.target)
}

func checkTmpfs(v string) error { _, err := parseTmpfs(v); return err }

func parseTmpfs(v string) (spec.Mount, error) {
	target, opts, _ := strings.Cut(v, ":")
	m := spec.Mount{Type: spec.MountTmpfs, Target: path.Clean(target)}
	if err := checkAbsolute(target); err != nil {
		return m, err
	}
	for o := range strings.SplitSeq(opts, ",") {
		if err := tmpfsOption(&m, o); err != nil {
			return m, err
		}
	}
	slices.Sort(m.Options)
	m.Options = slices.Compact(m.Options)
	return m, nil
}

func tmpfsOption(m *spec.Mount, o string) (err error) {
	name, value, _ := strings.Cut(o, "=")
	switch name {
	case "", "rw":
	case "ro":
		m.ReadOnly = true
	case "size":
		m.Size, err = parseSize(value)
	case "mode":
		m.Mode, err = parseTmpfsMode(value)
	case "uid", "gid", "nr_inodes":
		m.Options = append(m.Options, o)
		err = kindID.check(value)
	case "exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "nodiratime", "relatime":
		m.Options = append(m.Options, name)
	default:
		err = refuse("Use size=, mode=, uid=, gid=, nr_inodes=, ro, rw, exec, noexec, suid, nosuid, dev, nodev, noatime, nodiratime or relatime", "%q isn't a tmpfs option", clip(o))
	}
	return err
}

// parseTmpfsMode reads the short form's mode, which mount(8) takes as octal.
func parseTmpfsMode(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o7777 {
		return 0, refuse("", "%q isn't an octal file mode, such as 1777", clip(v))
	}
	return uint32(n), nil
}

// mount turns one merged entry of volumes into a spec.Mount.
func (c *converter) mount(v types.ServiceVolumeConfig) (spec.Mount, *problem) {
	m := spec.Mount{Type: spec.MountType(v.Type), Target: path.Clean(v.Target), ReadOnly: v.ReadOnly}
	switch m.Type {
	case spec.MountBind:
		if v.Source == "" {
			return m, refuse("Add source:", "the bind mount at %s has no source", v.Target)
		}
		m.Source = path.Clean(v.Source)
		if v.Bind != nil {
			m.CreateHost = bool(v.Bind.CreateHostPath)
			m.Options = propagation(v.Bind.Propagation)
		}
		if v.Bind != nil && v.Bind.SELinux != "" {
			c.report.warn("%s: z and Z relabel nothing: dunnage doesn't set SELinux labels", v.Source)
		}
	case spec.MountVolume:
		if dir, ok := c.directories[v.Source]; ok {
			c.usedVolumes[v.Source] = true
			m.Type, m.Source, m.Options, m.ReadOnly = spec.MountBind, dir.Source, dir.Options, m.ReadOnly || dir.ReadOnly
			return m, nil
		}
		if v.Source != "" {
			id, ok := c.volumes[v.Source]
			if !ok {
				return m, refuse("Declare it under volumes: at the top level, or write ./ before it if it is a directory", "the volume %q isn't declared", v.Source)
			}
			m.Source = id.ID
			c.usedVolumes[v.Source] = true
		}
		m.NoCopy = v.Volume != nil && v.Volume.NoCopy
		if v.Volume != nil {
			c.noteLabels("the volume at "+v.Target, len(v.Volume.Labels))
		}
	case spec.MountTmpfs:
		if v.Tmpfs != nil {
			m.Size, m.Mode = int64(v.Tmpfs.Size), uint32(v.Tmpfs.Mode)
		}
	}
	return m, nil
}

func propagation(p string) []string {
	if p == "" {
		return nil
	}
	return []string{p}
}
