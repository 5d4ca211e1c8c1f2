package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"dunnage/spec"
)

// Visited is how the visits of a target went since the release became desired.
type Visited struct {
	spec.VisitTally
	IllBefore bool // some failed shortly before that
}

// missed says that more visits of the service failed while its new replicas came
// in than it allows; its cause is empty while that isn't so. It doesn't speak of
// failures that the release isn't to blame for: those of a way back, of what
// failed before it already, of the gap that stop-first asks for, here or of who
// shares the network, and of addresses that the release takes away or gives to
// others. Where failures are tolerated (continue), these are too.
func (v *view) missed() fault {
	policy := v.policy()
	if v.project.Good == nil || v.project.Record.Backward || policy.Order == spec.StopFirst || policy.OnFailure == spec.FailureContinue || v.stopped || v.Replicas == 0 || v.leavesGap() {
		return fault{}
	}
	failed, worst := 0, spec.VisitTally{}
	for _, t := range v.visits {
		if t.Service != v.Name || t.IllBefore || !v.offers(t.VisitTarget) {
			continue
		}
		if failed += t.Failed; t.Failed > worst.Failed {
			worst = t.VisitTally
		}
	}
	if failed <= v.MaxFailed {
		return fault{}
	}
	of := "its address " + worst.Addr.String()
	if worst.Port > 0 {
		of = fmt.Sprintf("port %d", worst.Port)
	}
	text := fmt.Sprintf("%s: %d of %d visits of %s failed during the rollout (max_failed %d)", v.Name, worst.Failed, worst.Sent, of, v.MaxFailed)
	if why := commonest(worst.Reasons); why != "" {
		text += ": " + why
	}
	if worst.Port > 0 { // what others laid in the way may be to blame
		text += fmt.Sprintf("; `dunnage explain %d` walks that way", worst.Port)
	}
	return fault{cause: text, unreached: worst.Port > 0}
}

// offers reports whether clients who used the address before may use it in this
// release too.
func (v *view) offers(t spec.VisitTarget) bool {
	good, ok := v.project.Good.Project.Service(v.Name)
	if !ok {
		return false
	}
	if t.Port == 0 {
		return slices.ContainsFunc(v.project.Record.Addresses, func(a spec.ServiceLease) bool {
			return a.Service == v.Name && (a.Addr == t.Addr.Addr() || a.Addr6 == t.Addr.Addr())
		})
	}
	publishes := func(s spec.Service) bool {
		return slices.ContainsFunc(s.Ports, func(p spec.Port) bool {
			return p.Published == t.Port && p.Protocol == spec.TCP && (!p.HostIP.IsValid() || p.HostIP == t.Addr.Addr())
		})
	}
	same := slices.EqualFunc(good.Allow, v.Allow, func(a, b netip.Prefix) bool { return a == b })
	return same && publishes(v.Service) && publishes(good)
}

// commonest is the reason that most visits failed of.
func commonest(reasons map[string]int) string {
	best := ""
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		if reasons[why] > reasons[best] {
			best = why
		}
	}
	return best
}
