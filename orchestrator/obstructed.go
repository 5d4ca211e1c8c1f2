package orchestrator

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// mostFollowed bounds the packets that Obstructed follows: it is asked by doctor,
// which answers within two seconds.
const mostFollowed = 256

// Obstruction is what others have set up that ends or diverts all connections to
// published ports, or those that the dice send to some replicas.
type Obstruction struct {
	Maybe   bool     // or some, or none: what it ends isn't followed, or isn't for all clients
	Verdict string   // what becomes of the connections, and by which rule or route
	Next    []string // what to do
	At      []string // who is concerned: "shop/web at 198.51.100.7:8080"
}

// Obstructed follows a client's first packet to every published port, as Explain
// does for one, and returns who is in the way, and how many ways it has left out.
// What dunnage itself refuses or lets wait is none, and neither is a rule that takes
// some clients only, but a policy of IPsec is told of. A chain at a link, whose rules
// aren't followed, may be one.
func (l *Loop) Obstructed(ctx context.Context) (found []Obstruction, left int, err error) {
	status, err := l.Status(ctx)
	if err != nil {
		return nil, 0, err
	}
	return l.obstructed(ctx, status, func(serviceID) bool { return true })
}

// obstructed is Obstructed for some services.
func (l *Loop) obstructed(ctx context.Context, status spec.Status, concerns func(serviceID) bool) (found []Obstruction, left int, err error) {
	fronts, err := l.cfg.Network.Fronts(ctx)
	if err != nil {
		return nil, 0, err
	}
	var all []question
	for _, p := range status.Projects {
		for _, s := range p.Services {
			id := serviceID{p.Name, s.Name}
			if s.Stopped || !concerns(id) {
				continue
			}
			for _, port := range s.Ports {
				all = append(all, ofPort(id, port, netip.Addr{}, fronts)...)
			}
		}
	}
	if len(all) == 0 {
		return nil, 0, nil
	}
	left = max(0, len(all)-mostFollowed)
	all = all[:len(all)-left]
	var packets []spec.Packet
	for _, q := range all {
		packets = append(packets, q.packet)
	}
	traces, err := l.cfg.Network.Trace(ctx, packets)
	if err != nil {
		return nil, 0, fmt.Errorf("follow the packets: %w", err)
	}
	a := answers{status: status, desired: l.state.desired(), idle: l.repairsNothing(), now: l.cfg.Clock.Now()}
	at := map[string]int{} // verdict -> place in found
	for i, q := range all {
		w := spec.ExplainedWay{Trace: traces[i], Service: q.service.String()}
		maybe := mayObstruct(w.Trace)
		if !maybe && !obstructs(w.Trace) {
			continue
		}
		v := a.verdict(w, "")
		if _, known := at[v.text]; !known {
			at[v.text] = len(found)
			found = append(found, Obstruction{Maybe: maybe, Verdict: v.text, Next: v.next})
		}
		o := &found[at[v.text]]
		o.At = append(o.At, fmt.Sprintf("%s at %s", w.Service, w.Packet.To))
	}
	return found, left, nil
}

// mayObstruct reports whether a chain at a link may end all of the port's packets:
// its rules aren't followed. A policy of IPsec is told of though it takes some clients
// only: no list of rules shows it.
func mayObstruct(t spec.Trace) bool {
	ends := dying(t)
	return !t.Away && t.Fate == spec.FateMaybe && len(ends) > 0 && (isAtLink(ends[0]) || isIPsec(ends[0]))
}

// blameTime bounds the search for who is in the way of a release that failed: the
// loop waits for it, and goes back then.
const blameTime = time.Second

// blamed is why the release failed and, where clients don't get through to it, what
// others have set up in their way: it may be none of the release's doing.
func (l *Loop) blamed(r plan.Rollout) string {
	if r.Unreached == "" {
		return r.Failed
	}
	ctx, cancel := context.WithTimeout(l.ctx, blameTime)
	defer cancel()
	found, _, err := l.obstructed(ctx, *l.status.Load(), func(s serviceID) bool { return s == serviceID{r.Project, r.Unreached} })
	if err != nil {
		l.cfg.Log.Warn("look for what is in the way of a release", "project", r.Project, "error", err)
	}
	if len(found) == 0 {
		return r.Failed
	}
	return strings.Join(append([]string{r.Failed, "whichever release serves, " + found[0].Verdict}, found[0].Next...), "; ")
}

// obstructs reports whether somebody else's rule, or a route, is what becomes of
// the packet, or that the host lacks the address.
func obstructs(t spec.Trace) bool {
	if t.Away {
		return true
	}
	switch t.Fate {
	case spec.FateArrives:
		return isTaken(t)
	case spec.FateDropped, spec.FateRefused, spec.FatePartly:
		ends := dying(t)
		return len(ends) > 0 && ends[0].Owner != spec.OwnerDunnage
	default:
		return false
	}
}
