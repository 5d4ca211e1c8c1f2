package manifest

import (
	"time"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// probes decides how a service's health is looked at: what is declared, both
// kinds of it; else a TCP check; else that it runs. Never empty.
func (c *converter) probes(name string, in types.ServiceConfig, network *spec.Probe) []spec.Probe {
	var out []spec.Probe
	check := in.HealthCheck
	off := check != nil && disabled(check)
	if check != nil && !off {
		if p, ok := c.execProbe(name, check); ok {
			out = append(out, p)
		}
	}
	if network != nil {
		out = append(out, *network)
	}
	if len(out) > 0 {
		return out
	}
	if port := defaultProbePort(in); port != 0 && !off {
		p := networkDefaults(spec.ProbeTCP, port)
		p.StartPeriod = spec.Duration(defaultStartPeriod)
		return []spec.Probe{p}
	}
	return []spec.Probe{networkDefaults(spec.ProbeRunning, 0)}
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

func (c *converter) execProbe(name string, in *types.HealthCheckConfig) (spec.Probe, bool) {
	p := spec.Probe{
		Kind: spec.ProbeExec, Retries: defaultRetries,
		Interval: spec.Duration(execInterval), Timeout: spec.Duration(execTimeout),
	}
	cmd, bad := testCommand(in.Test)
	if bad != nil {
		c.failAt(bad, "services", name, "healthcheck", "test")
		return p, false
	}
	p.Command = cmd
	if in.Interval != nil {
		p.Interval = spec.Duration(*in.Interval)
	}
	if in.Timeout != nil {
		p.Timeout = spec.Duration(*in.Timeout)
	}
	if in.StartPeriod != nil {
		p.StartPeriod = spec.Duration(*in.StartPeriod)
	}
	if in.Retries != nil {
		p.Retries = orDefault(int(*in.Retries))
	}
	return p, true
}

// testCommand is the argv of a healthcheck.
func testCommand(test []string) ([]string, *problem) {
	switch {
	case len(test) == 0:
		return nil, refuse("Add test:, or disable: true", "the healthcheck has no test, and the image's own isn't used")
	case test[0] == "CMD" && len(test) > 1:
		return test[1:], nil
	case test[0] == "CMD-SHELL" && len(test) == 2 && test[1] != "":
		return []string{"/bin/sh", "-c", test[1]}, nil
	case test[0] == "CMD", test[0] == "CMD-SHELL":
		return nil, refuse("Write the command after it", "%s needs a command: one text for CMD-SHELL, at least one for CMD", test[0])
	}
	return nil, refuse("Start the list with CMD, CMD-SHELL or NONE", "%q isn't a kind of test", clip(test[0]))
}
