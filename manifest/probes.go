package manifest

import (
	"time"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// probes decides how a service's health is looked at: what is declared, both
// kinds of it, and the image's own check where the file has no command; else a
// TCP check; else that it runs. The agent knows the image and drops what isn't
// needed then. Never empty.
func (c *converter) probes(name string, in types.ServiceConfig, network, accept *spec.Probe) []spec.Probe {
	var out []spec.Probe
	check := in.HealthCheck
	off := check != nil && disabled(check)
	if !off {
		if p, ok := c.commandProbe(name, check); ok {
			out = append(out, p)
		}
	}
	switch {
	case network != nil:
		out = append(out, *network)
	case len(out) > 0 && out[0].Kind == spec.ProbeExec:
	default:
		p := defaultProbe(in, off)
		p.Fallback = !off
		out = append(out, p)
	}
	if accept != nil {
		out = append(out, *accept)
	}
	return out
}

// defaultProbe is for a service of which nothing is said.
func defaultProbe(in types.ServiceConfig, off bool) spec.Probe {
	port := defaultProbePort(in)
	if port == 0 || off {
		return networkDefaults(spec.ProbeRunning, 0)
	}
	p := networkDefaults(spec.ProbeTCP, port)
	p.StartPeriod = spec.Duration(defaultStartPeriod)
	return p
}

// defaultStartPeriod is how long software may take until it listens when nobody
// said how to look at it. A database that initialises or a JVM takes tens of
// seconds; a success ends the wait at once.
const defaultStartPeriod = time.Minute

func disabled(in *types.HealthCheckConfig) bool {
	return in.Disable || len(in.Test) > 0 && in.Test[0] == "NONE"
}

// defaultProbePort is the first published, else the first exposed TCP port, in
// the order of the file.
func defaultProbePort(in types.ServiceConfig) uint16 {
	for _, p := range in.Ports {
		if proto, _ := parseProtocol(p.Protocol); proto == spec.TCP {
			return uint16(p.Target)
		}
	}
	for _, v := range in.Expose {
		if ports, _ := parseExpose(v); len(ports) > 0 && ports[0].Protocol == spec.TCP {
			return ports[0].Port
		}
	}
	return 0
}

// commandProbe is the healthcheck's command with the times beside it; without
// a command it is the image's, of which the times said here are taken over.
func (c *converter) commandProbe(name string, in *types.HealthCheckConfig) (spec.Probe, bool) {
	p := spec.Probe{Kind: spec.ProbeImage}
	if in == nil {
		return p, true
	}
	if len(in.Test) > 0 {
		cmd, bad := testCommand(in.Test)
		if bad != nil {
			c.failAt(bad, "services", name, "healthcheck", "test")
			return p, false
		}
		p = spec.Probe{
			Kind: spec.ProbeExec, Command: cmd, Retries: defaultRetries,
			Interval: spec.Duration(execInterval), Timeout: spec.Duration(execTimeout),
		}
	}
	for field, said := range map[*spec.Duration]*types.Duration{
		&p.Interval: in.Interval, &p.Timeout: in.Timeout, &p.StartPeriod: in.StartPeriod, &p.StartInterval: in.StartInterval,
	} {
		if said != nil {
			*field = spec.Duration(*said)
		}
	}
	if in.Retries != nil && *in.Retries > 0 { // 0 retries mean the default, as in Docker
		p.Retries = int(*in.Retries)
	}
	return p, true
}

// testCommand is the argv of a healthcheck.
func testCommand(test []string) ([]string, *problem) {
	switch {
	case test[0] == "CMD" && len(test) > 1:
		return test[1:], nil
	case test[0] == "CMD-SHELL" && len(test) == 2 && test[1] != "":
		return []string{"/bin/sh", "-c", test[1]}, nil
	case test[0] == "CMD", test[0] == "CMD-SHELL":
		return nil, refuse("Write the command after it", "%s needs a command: one text for CMD-SHELL, at least one for CMD", test[0])
	}
	return nil, refuse("Start the list with CMD, CMD-SHELL or NONE", "%q isn't a kind of test", clip(test[0]))
}
