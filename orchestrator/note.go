package orchestrator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// note takes an action's outcome into the loop's memory and tells of it.
func (l *Loop) note(r outcome) {
	key := r.action.Replica()
	if r.err != nil {
		l.failed = true
		l.noteFailure(key, r)
		return
	}
	l.enter(r)
	now := l.cfg.Clock.Now()
	tell := func(kind spec.EventKind, format string, args ...any) {
		l.events.add(spec.Event{Kind: kind, Project: key.Project, Service: key.Service, Replica: key.ID, Message: fmt.Sprintf(format, args...)})
	}
	switch a := r.action.(type) {
	case plan.Apply:
		delete(l.failures, "")
		l.mended(key)
		l.tellRoutes(a.Routing, l.cfg.Network.Written().Last)
		l.applied, l.laid, l.own = a.Routing, true, true
	case plan.WriteNames:
		l.names[key.ID] = plan.Fingerprint(a.Endpoint.Names)
	case plan.Drain:
		l.draining[key.ID] = now
		tell(spec.EventDraining, "%s drains %s until %s", key.ID, counted(a.Conns, "connection"), a.Until.Format(time.TimeOnly))
	case plan.Stop:
		l.stopping[key.ID] = now
		why := ""
		if a.Outgrown > 0 {
			why = fmt.Sprintf(": its writable layer has %s, and it goes on with an empty one", spec.Bytes(a.Outgrown))
		}
		tell(spec.EventStopping, "%s got its stop signal%s", key.ID, why)
	case plan.Create:
		delete(l.failures, key.ID)
		if l.mended(key) {
			return
		}
		tell(spec.EventCreated, "%s created", key.ID)
	case plan.Start:
		delete(l.failures, key.ID)
		tell(spec.EventStarted, "%s started", key.ID)
	case plan.Limit:
		delete(l.failures, key.ID)
		tell(spec.EventLimited, "%s has its new limits", key.ID)
	case plan.Deliver:
		delete(l.failures, key.ID)
		tell(spec.EventSecret, "%s has its new secrets", key.ID)
	case plan.RecordExit:
		tell(spec.EventExited, "%s %s", key.ID, plan.ExitText(spec.ReplicaRecord{Exit: &a.Exit}))
	case plan.Renew:
		delete(l.failures, key.ID)
		tell(spec.EventRemoved, "%s: its writable layer is removed", key.ID)
	case plan.Remove:
		delete(l.failures, key.ID)
		tell(spec.EventRemoved, "%s removed", key.ID)
	}
}

// tellRoutes makes an event for each service whose backends are others since the
// commit; its time is zero where it isn't known.
func (l *Loop) tellRoutes(next spec.Routing, commit time.Time) {
	before := backendsOf(l.applied)
	after := backendsOf(next)
	for _, s := range next.Services {
		key := [2]string{s.Project, s.Service}
		if now := after[key]; now != before[key] {
			before[key] = now // a service is in several networks, but told of once
			l.events.add(spec.Event{
				At: commit, Kind: spec.EventRouted, Project: s.Project, Service: s.Service,
				Message: whereto(s),
			})
		}
	}
}

// whereto says what becomes of the connections to a service.
func whereto(s spec.ServiceRoute) string {
	switch {
	case len(s.Backends) > 0:
		return "connections go to " + described(s.Backends)
	case s.Absent == spec.Hold:
		return "no replica is ready: connections wait"
	default:
		return "no replica is ready: connections are refused"
	}
}

// described counts the backends, by generation where there are several.
func described(backends []spec.Backend) string {
	text := counted(len(backends), "replica")
	var parts []string
	for len(backends) > 0 {
		gen := generationOf(backends[0].Replica)
		rest := slices.DeleteFunc(slices.Clone(backends), func(b spec.Backend) bool { return generationOf(b.Replica) == gen })
		parts = append(parts, fmt.Sprintf("%d of %s", len(backends)-len(rest), gen))
		backends = rest
	}
	if len(parts) > 1 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

// generationOf is the short generation in a replica's ID.
func generationOf(replica string) string {
	id := replica[:max(0, strings.LastIndexByte(replica, '-'))]
	return id[strings.LastIndexByte(id, '-')+1:]
}

func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// backendsOf is the text of each service's backends.
func backendsOf(r spec.Routing) map[[2]string]string {
	out := map[[2]string]string{}
	for _, s := range r.Services {
		out[[2]string{s.Project, s.Service}] += string(s.Absent) + " "
		for _, b := range s.Backends {
			out[[2]string{s.Project, s.Service}] += b.Replica + " "
		}
	}
	return out
}

// noteFailure tells of each cause once: an action may be tried ten times a
// second for as long as the disk is full.
func (l *Loop) noteFailure(key spec.ReplicaKey, r outcome) {
	text := strings.TrimSuffix(plain(r.err), ": "+spec.ErrRefused.Error())
	what := nameOf(r.action)
	f := l.failures[key.ID]
	next := failure{count: f.count + 1, at: l.cfg.Clock.Now(), text: text, space: errors.Is(r.err, spec.ErrNoSpace)}
	if f.text != text && !(f.space && next.space) { // containerd meets a full disk at another path each time
		l.cfg.Log.Error("action failed", "action", what, "replica", key.ID, "error", text)
		l.events.add(spec.Event{Kind: spec.EventProblem, Project: key.Project, Service: key.Service, Replica: key.ID, Message: what + ": " + strings.TrimPrefix(text, what+" "+key.ID+": ")})
	}
	if a, ok := r.action.(plan.Limit); ok {
		next.limits = a.Limits.Fingerprint()
	}
	if next.limits != f.limits || next.space != f.space {
		next.count = 1 // of another kind
	}
	l.failures[key.ID] = next
	if a, ok := r.action.(plan.Apply); ok && !a.Routing.Equal(l.applied) {
		l.laid = false // some of it may be there
	}
	if c, ok := r.action.(plan.Create); ok && errors.Is(r.err, spec.ErrNotFound) {
		l.repull(c.Image)
	}
}
