package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dunnage/spec"
)

// reachPatience is how long a release may not be reached at a port, though its
// replicas say that they are well: longer than a program takes from its first
// healthy answer to its last open port, or a firewall to be loaded anew, and
// short, because nobody is served.
const reachPatience = 5 * time.Second

// find gives each view what the visitor found at its targets, in their order. A
// target that the visitor hasn't been told of yet is unknown.
func find(all []*view, targets []spec.VisitTarget, o Observed) {
	services := make(map[string]*view, len(all))
	for _, v := range all {
		services[v.path()] = v
	}
	for _, t := range targets {
		var r spec.Reach
		if i, ok := slices.BinarySearchFunc(o.Reach, t.Key(), func(r spec.Reach, key string) int { return cmp.Compare(r.Key(), key) }); ok {
			r = o.Reach[i]
		}
		r.VisitTarget = t
		v := services[t.Project+"/"+t.Service]
		v.reach = append(v.reach, r)
	}
}

// counts reports whether what was found tells of the service: its replicas take
// connections there, and the visitor could ask. Many programs listen on IPv4
// alone; then nobody has ever been served by IPv6, and nobody misses it.
func (v *view) counts(r spec.Reach) bool {
	if r.Absent || r.Unasked != "" {
		return false
	}
	return !(r.Addr.Addr().Is6() && r.Asked.IsZero() && slices.ContainsFunc(v.reach, func(o spec.Reach) bool {
		return o.Port == r.Port && o.From == r.From && o.Addr.Addr().Is4() && o.State == spec.ReachReachable
	}))
}

// unreachable says at which address the replicas that are well aren't reached;
// empty = at none.
func (v *view) unreachable() string {
	for _, r := range v.reach {
		if r.State == spec.ReachUnreachable && v.counts(r) {
			return fmt.Sprintf("%s; `dunnage explain %s` shows where", lost(r), explainable(r))
		}
	}
	return ""
}

// lost says in a few words what is wrong with an address.
func lost(r spec.Reach) string {
	return fmt.Sprintf("%s: healthy inside, unreachable %s: %s", titled(r), fromWhere(r), r.Detail)
}

func titled(r spec.Reach) string {
	switch {
	case r.Port == 0:
		return "service address " + r.Addr.String()
	case r.From == spec.FromHost:
		return "port " + r.Addr.String()
	case r.Addr.Addr().Is6():
		return fmt.Sprintf("port %d (IPv6)", r.Port)
	default:
		return fmt.Sprintf("port %d", r.Port)
	}
}

func fromWhere(r spec.Reach) string {
	if r.From == spec.FromHost {
		return "from the host"
	}
	return "outside"
}

// explainable is what `dunnage explain` takes for the address.
func explainable(r spec.Reach) string {
	switch {
	case r.Port == 0, r.From == spec.FromHost, r.Addr.Addr().Is6():
		return "tcp://" + r.Addr.String()
	default:
		return fmt.Sprint(r.Port)
	}
}

// deafIf is the state of a replica that takes connections.
func deafIf(unreachable bool, s spec.ReplicaState) spec.ReplicaState {
	if unreachable && s == spec.StateReady {
		return spec.StateUnreachable
	}
	return s
}

// gated reports whether a release must be reached at the address: a published
// port that was reachable before it came, or that it brought. Were one gated
// that something on the host has blocked since before, no release could come
// in any more, not even the one that mends it.
func (v *view) gated(r spec.Reach) bool { return r.Port > 0 && v.counts(r) && !v.blockedBefore(r) }

func (v *view) blockedBefore(r spec.Reach) bool {
	return v.project.Good != nil && r.State == spec.ReachUnreachable && r.Since.Before(v.project.Record.Since)
}

// awaits says which port the release has yet to be reached at since the rules
// lead there; empty = none.
func (v *view) awaits(committed time.Time) string {
	for _, r := range v.reach {
		if v.gated(r) && (r.Asked.IsZero() || r.Asked.Before(committed)) {
			text := titled(r) + " has yet to be reached from outside"
			if r.Failed > 0 {
				text += ": " + r.Detail
			}
			return text
		}
	}
	return ""
}

// standsBy reports whether the replica of the release before is left running,
// though it has handed its connections over: until the new ones are reached, it is
// what a rollback needs.
func standsBy(all []*view, r *Replica, committed time.Time) bool {
	i := slices.IndexFunc(all, func(v *view) bool { return v.project.Record.Name == r.Project && v.Name == r.Service })
	if i < 0 {
		return false
	}
	v := all[i]
	return v.project.Rolling() && r.Generation == v.goodGen && v.gen != v.goodGen && v.policy().Order == spec.StartFirst && r.Usable() && v.awaits(committed) != ""
}

// shutOut is a port that the release isn't reached at for too long, and when
// that will be so; neither while it may come.
func (v *view) shutOut(now time.Time) (cause string, due time.Time) {
	for _, r := range v.reach {
		if !v.gated(r) || r.State != spec.ReachUnreachable {
			continue
		}
		since := r.Failing
		if at := v.project.Record.Since; at.After(since) {
			since = at
		}
		end := since.Add(reachPatience)
		if !now.Before(end) {
			return fmt.Sprintf("%s: %s, for %s", v.Name, lost(r), now.Sub(since).Round(time.Second)), time.Time{}
		}
		if due.IsZero() || end.Before(due) {
			due = end
		}
	}
	return "", due
}

// deaf is the fault of not being reached. Of a release with one replica, that
// replica's log may tell why.
func (v *view) deaf(cause string) fault {
	f := fault{cause: cause, unreached: true}
	if len(v.current) == 1 {
		f.replica = v.current[0].ReplicaKey
	}
	return f
}

// leftUnreached says which port is left out of the gate; empty = none.
func (v *view) leftUnreached() string {
	for _, r := range v.reach {
		if r.Port > 0 && v.counts(r) && v.blockedBefore(r) {
			return lost(r) + ", as before this release"
		}
	}
	return ""
}

// exposes reports whether the release changes at which addresses the service is
// reached, or by whom.
func (v *view) exposes() bool {
	if v.project.Good == nil {
		return true
	}
	good, ok := v.project.Good.Project.Service(v.Name)
	return !ok || !slices.Equal(good.Ports, v.Ports) || !slices.Equal(good.Allow, v.Allow)
}
