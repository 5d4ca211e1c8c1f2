package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"dunnage/spec"
)

// Nobody can say how the containers are while the engine doesn't answer. The
// kernel still says which of them have a process: that is enough to send no
// connections to the dead.

// vanished is what is said of such a replica.
const vanished = "its process is gone, and containerd doesn't answer"

// serveBlind repairs the rules while the engine doesn't answer: as they were
// meant last, but for replicas whose process is gone, where others are left.
// equal says that the kernel has them as meant last.
func (l *Loop) serveBlind(ctx context.Context, equal bool) {
	if !l.hasLooked() || l.holding() != "" {
		return
	}
	gone := l.tellVanished()
	routing := l.applied
	routing.Services = slices.Clone(routing.Services)
	for i, s := range routing.Services {
		routing.Services[i].Backends = withBackend(s.Backends, gone)
		routing.Services[i].Absent = l.stillHeld(s.Project, s.Service, s.Absent)
	}
	routing.Published = slices.Clone(routing.Published)
	for i, p := range routing.Published {
		routing.Published[i].Backends = withBackend(p.Backends, gone)
		routing.Published[i].Absent = l.stillHeld(p.Project, p.Service, p.Absent)
	}
	if equal && routing.Equal(l.applied) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout) // the look's own time may be up
	defer cancel()
	var damage []spec.Damage
	if !equal && l.laid {
		damage, _ = l.cfg.Network.Damaged(ctx, l.applied, nil) // the repair matters more than its name
	}
	began := l.cfg.Clock.Now()
	if err := l.cfg.Network.Apply(ctx, routing); err != nil {
		l.cfg.Log.Error("repair the rules", "error", err)
		l.laid = l.laid && routing.Equal(l.applied)
		return
	}
	if len(damage) > 0 {
		l.measures.repaired(damage)
		l.tellRepaired(spec.ReplicaKey{}, damage, l.cfg.Clock.Now().Sub(began))
	}
	l.tellRoutes(routing, time.Time{})
	l.applied, l.laid = routing, true
}

// stillHeld ends a hold whose time is over: nobody learns of a replica that
// would answer.
func (l *Loop) stillHeld(project, service string, absent spec.Absent) spec.Absent {
	if !l.absent[project+"/"+service].Holds(l.cfg.Clock.Now()) {
		return spec.Refuse
	}
	return absent
}

// withBackend is the backends without those that are gone, if any is left.
func withBackend(all []spec.Backend, gone map[string]bool) []spec.Backend {
	left := slices.DeleteFunc(slices.Clone(all), func(b spec.Backend) bool { return gone[b.Replica] })
	if len(left) == 0 {
		return all
	}
	return left
}

// tellVanished shows, and returns, the replicas of the last snapshot whose
// process is gone.
func (l *Loop) tellVanished() map[string]bool {
	gone := map[string]bool{}
	st := *l.status.Load()
	st.Projects = slices.Clone(st.Projects)
	for i := range st.Projects {
		services := slices.Clone(st.Projects[i].Services)
		st.Projects[i].Services = services
		for j := range services {
			s := &services[j]
			s.Replicas = slices.Clone(s.Replicas)
			for k := range s.Replicas {
				r := &s.Replicas[k]
				if r.Pid == 0 || r.State == spec.StateStopping || l.cfg.Engine.Runs(r.Replica) {
					continue
				}
				gone[r.Replica] = true
				if r.Detail != vanished {
					l.showVanished(s, r)
				}
			}
		}
	}
	l.status.Store(&st)
	return gone
}

func (l *Loop) showVanished(s *spec.ServiceStatus, r *spec.ReplicaStatus) {
	if (r.State == spec.StateReady || r.State == spec.StateUnreachable) && r.Generation == s.Generation {
		s.Ready--
	}
	r.State, r.Health, r.Detail = spec.StateUnhealthy, spec.HealthUnknown, vanished
	if s.Ready < s.Wanted {
		s.Waiting = fmt.Sprintf("%d of %d ready; %s: %s", s.Ready, s.Wanted, r.Replica, vanished)
	}
	l.events.add(spec.Event{Kind: spec.EventProblem, Project: r.Project, Service: r.Service, Replica: r.Replica, Message: r.Replica + ": " + vanished})
}
