package manifest

import (
	"fmt"
	"slices"

	"dunnage/spec"
)

func encodeRollout(out *composeService, s spec.Service) {
	out.Restart, out.Deploy.RestartPolicy = encodeRestart(s.Restart)
	out.Deploy.Update = encodeUpdate(s.Update, spec.FailureRollback)
	if s.Rollback != nil {
		back := encodeUpdate(*s.Rollback, spec.FailurePause)
		out.Deploy.Rollback = &back
	}
}

// encodeRestart prefers the short key, which says less.
func encodeRestart(r spec.RestartPolicy) (string, *composeRestartPolicy) {
	switch {
	case r.Delay > 0, r.Window > 0, r.Max > 0 && r.Mode != spec.RestartOnFailure:
		p := &composeRestartPolicy{MaxAttempts: r.Max, Delay: optional(r.Delay), Window: optional(r.Window)}
		for condition, mode := range conditions {
			if mode == r.Mode && condition != "" {
				p.Condition = condition
			}
		}
		return "", p
	case r.Max > 0:
		return fmt.Sprintf("%s:%d", r.Mode, r.Max), nil
	}
	return string(r.Mode), nil
}

// encodeUpdate leaves out the failure action that holds without the key.
func encodeUpdate(u spec.UpdatePolicy, usual spec.FailureAction) composeUpdate {
	out := composeUpdate{
		Order: u.Order, Parallelism: u.Parallelism, Delay: optional(u.Delay),
		Monitor: optional(u.Monitor), MaxFailureRatio: u.MaxFailureRatio,
	}
	if u.OnFailure != usual {
		out.FailureAction = u.OnFailure
	}
	return out
}

// optional leaves out 0.
func optional(d spec.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func encodeExtension(s spec.Service) composeExtension {
	x := composeExtension{
		Drain: s.Drain.String(), Hold: encodeHold(s.Hold), KeepWarm: optional(s.KeepWarm), Disk: s.Disk, MaxFailed: s.MaxFailed, Ramp: optional(s.Ramp), OnUnhealthy: s.Unhealthy,
		ProgressDeadline: optional(s.Update.Deadline), Build: s.Build,
	}
	for _, a := range s.Allow {
		x.Allow = append(x.Allow, a.String())
	}
	if s.Sticky {
		x.Sticky = clientIP
	}
	if t := s.Canary; t != nil {
		x.Canary = &composeCanary{t.Replicas, optional(t.For), t.Weight}
	}
	return x
}

// encodeProbes writes what leads to these probes. The fallback follows from
// the ports: its own goes first.
func encodeProbes(out *composeService, probes []spec.Probe) {
	out.Healthcheck = &composeHealthcheck{Disable: true}
	for _, p := range probes {
		switch {
		case p.Fallback:
			probedFirst(out, p.Port)
		case p.Kind == spec.ProbeExec:
			out.Healthcheck = encodeHealthcheck(p)
			out.Healthcheck.Test = append([]string{"CMD"}, p.Command...)
			out.Healthcheck.StartPeriod = p.StartPeriod.String()
		case p.Kind == spec.ProbeImage:
			out.Healthcheck = encodeHealthcheck(p)
			if p.Interval+p.Timeout+p.StartPeriod+p.StartInterval == 0 && p.Retries == 0 {
				out.Healthcheck = nil // the image's as it is
			}
		case p.Kind == spec.ProbeHTTP:
			out.Dunnage.Probe = encodeNetworkProbe(p)
			out.Dunnage.Probe.HTTP = &composeTarget{p.Port, p.Path}
		case p.Kind == spec.ProbeTCP:
			out.Dunnage.Probe = encodeNetworkProbe(p)
			out.Dunnage.Probe.TCP = &composeTarget{Port: p.Port}
		case p.Kind == spec.ProbeAccept:
			out.Dunnage.Accept = &composeAccept{p.Command, p.Timeout.String()}
		}
	}
}

// probedFirst moves what the default check looks at to where it is found.
func probedFirst(out *composeService, port uint16) {
	if i := slices.IndexFunc(out.Ports, func(p composePort) bool { return p.Target == port && p.Protocol == string(spec.TCP) }); i > 0 {
		p := out.Ports[i]
		out.Ports = slices.Insert(slices.Delete(out.Ports, i, i+1), 0, p)
	}
	if i := slices.Index(out.Expose, fmt.Sprintf("%d/%s", port, spec.TCP)); i > 0 {
		e := out.Expose[i]
		out.Expose = slices.Insert(slices.Delete(out.Expose, i, i+1), 0, e)
	}
}

func encodeHealthcheck(p spec.Probe) *composeHealthcheck {
	return &composeHealthcheck{
		Interval: optional(p.Interval), Timeout: optional(p.Timeout), Retries: p.Retries,
		StartPeriod: optional(p.StartPeriod), StartInterval: optional(p.StartInterval),
	}
}

func encodeNetworkProbe(p spec.Probe) *composeProbe {
	return &composeProbe{
		Interval: p.Interval.String(), Timeout: p.Timeout.String(),
		StartPeriod: p.StartPeriod.String(), Retries: p.Retries,
	}
}
