package manifest

import (
	"slices"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// What a file says to Docker's drivers of networks and volumes.

// driverOptions refuses options of a network that would change something.
func (c *converter) driverOptions(network string, opts types.Options) {
	const bridge, mtu = "com.docker.network.bridge.", "com.docker.network.driver.mtu"
	for _, name := range sorted(opts) {
		switch name + "=" + opts[name] {
		case bridge + "enable_icc=true", bridge + "enable_ip_masquerade=true", bridge + "host_binding_ipv4=0.0.0.0":
			continue // as it is anyway
		}
		switch name {
		case bridge + "name":
			c.report.note("network %s: there is no bridge, so none is called %s", network, opts[name])
			continue
		case mtu:
			c.report.note("network %s: the MTU is that of the host's default route, whatever %s says", network, mtu)
			continue
		}
		c.failAt(refuse("Remove the option", "there is no bridge driver that could do it: replicas are routed by the host"), "networks", network, "driver_opts", name)
	}
}

// boundVolumes are the volumes that Docker's local driver would make of a
// directory of the host: a bind mount under another name.
func (c *converter) boundVolumes() map[string]spec.Mount {
	out := map[string]spec.Mount{}
	for _, name := range sorted(c.in.Volumes) {
		opts := c.in.Volumes[name].DriverOpts
		if len(opts) == 0 {
			continue
		}
		m, p := c.boundVolume(opts)
		if p != nil {
			c.failAt(p, "volumes", name, "driver_opts")
		}
		out[name] = m
	}
	return out
}

func (c *converter) boundVolume(opts types.Options) (spec.Mount, *problem) {
	m := spec.Mount{Source: absolute(c.dir, opts["device"])}
	bind, others := false, false
	for o := range strings.SplitSeq(opts["o"], ",") {
		switch o {
		case "bind", "rbind":
			bind = true
		case "rw", "":
		case "ro":
			m.ReadOnly = true
		case "private", "rprivate", "shared", "rshared", "slave", "rslave":
			m.Options = []string{o}
		default:
			others = true
		}
	}
	switch fs := opts["type"]; {
	case fs == "tmpfs":
		return m, refuse("Write it under tmpfs of the service", "a tmpfs is never shared between containers")
	case !bind || others || fs != "none" && fs != "bind" && fs != "":
		return m, refuse("Mount the file system on the host and bind-mount its directory", "a volume is a plain directory: type: none and o: bind")
	case opts["device"] == "":
		return m, refuse("Add device: DIRECTORY", "the bind mount has no directory")
	}
	for name := range opts {
		if name != "type" && name != "o" && name != "device" {
			return m, refuse("Remove it", "the local driver has no option %q", clip(name))
		}
	}
	return m, nil
}

// bindOptions reports whether the driver_opts of a volume ask for a bind mount.
func bindOptions(t *tree) bool {
	o := t.child("o")
	return o != nil && slices.Contains(strings.Split(o.value, ","), "bind")
}
