package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// sizePatience is how long a preview waits for registries.
const sizePatience = 2 * time.Second

// pullSizes asks the registries how much is to be downloaded, side by side, and
// returns what that is of those that answered.
func (l *Loop) pullSizes(ctx context.Context, pulls []spec.ImagePull) []spec.MissingBlob {
	ctx, cancel := context.WithTimeout(ctx, sizePatience)
	defer cancel()
	var wg sync.WaitGroup
	missing := make([][]spec.MissingBlob, len(pulls))
	for i := range pulls {
		wg.Go(func() {
			blobs, err := l.cfg.Images.Missing(ctx, pulls[i].Ref)
			if err != nil {
				l.cfg.Log.Debug("ask for an image's size", "image", pulls[i].Ref, "error", err)
				return
			}
			missing[i], pulls[i].Known = blobs, true
			pulls[i].Size, _ = spec.Room(blobs)
		})
	}
	wg.Wait()
	return slices.Concat(missing...)
}

// foresee says what the deploy of c changes for connections: rules, connections
// that have to end, and gaps. It runs on the loop's goroutine and changes nothing.
func (l *Loop) foresee(ctx context.Context, out *spec.Preview, prev *spec.Release, c candidate, inactive []string) error {
	next, going, err := l.routingAfter(c, inactive)
	if err != nil {
		return err
	}
	if out.Rules, err = l.cfg.Network.Compare(*l.routing.Load(), next); err != nil {
		return fmt.Errorf("compare the rules: %w", err)
	}
	if err := l.countGoing(ctx, out, going); err != nil {
		return err
	}
	starts := l.lastStarts(ctx, out.Project)
	for i := range out.Services {
		s := &out.Services[i]
		next, _ := c.release.Project.Service(s.Name)
		s.Gap = joinedGap(gap(*s, next, starts[s.Name], l.unserved(out.Project, s.Name)), losses(*s, prev, c.release.Project))
		s.Canary = trial(*s, next, out.Project)
		s.Warm = strings.Join(slices.DeleteFunc([]string{l.keptWarm(c.release, s.Name), l.thirdNote(c.release, s.Name, s.Change)}, func(text string) bool { return text == "" }), "; ")
	}
	if out.To > 0 {
		out.Secrets = changedSecrets(out.Services)
	}
	return nil
}

// countGoing counts the connections that are open to replicas that go.
func (l *Loop) countGoing(ctx context.Context, out *spec.Preview, going []spec.ReplicaRecord) error {
	var addrs []netip.Addr
	for _, r := range going {
		addrs = append(addrs, plan.Addresses(r)...)
	}
	if len(addrs) == 0 {
		return nil
	}
	open, err := l.cfg.Network.Connections(ctx, addrs)
	if err != nil {
		return fmt.Errorf("count connections: %w", err)
	}
	for _, r := range going {
		for _, a := range plan.Addresses(r) {
			out.Draining += open[a]
			if i := slices.IndexFunc(out.Services, func(s spec.ServicePreview) bool { return s.Name == r.Service }); i >= 0 {
				out.Services[i].Draining += open[a]
			}
		}
	}
	return nil
}

// routingAfter is the routing once the candidate has converged: replicas that stay
// with their addresses, and new ones with free addresses. going are the replicas
// that it has no use for.
func (l *Loop) routingAfter(c candidate, inactive []string) (spec.Routing, []spec.ReplicaRecord, error) {
	now := l.cfg.Clock.Now()
	r := c.release
	name := r.Project.Name
	rec, ok := l.state.project(name)
	if !ok {
		rec = spec.ProjectRecord{Name: name, Next: 1}
	}
	if rec.Down {
		rec.Down, rec.Stopped = false, nil
	}
	var err error
	if rec.Networks, err = l.alloc.networks(rec, r.Project); err != nil {
		return spec.Routing{}, nil, err
	}
	if rec.Addresses, err = l.alloc.leases(rec, r.Project, now); err != nil {
		return spec.Routing{}, nil, err
	}
	r.Number = rec.Next
	rec.Desired, rec.Good, rec.Stopped, rec.Backward, rec.Paused = r.Number, r.Number, kept(rec.Stopped, inactive), false, ""
	taken := l.alloc.taken(now)
	for _, lease := range rec.Addresses {
		taken[lease.Addr], taken[lease.Addr6] = true, true
	}
	var replicas []plan.Replica
	var going []spec.ReplicaRecord
	stays := map[string]bool{}
	for _, s := range r.Project.Services {
		generation := r.Generation(s.Name)
		for n := 1; n <= s.Replicas; n++ {
			id := spec.ReplicaID(name, s.Name, generation, n)
			record, known := l.state.replica(id)
			if !known {
				record.ReplicaKey = spec.ReplicaKey{ID: id, Project: name, Service: s.Name, Generation: generation, Number: n}
				for _, at := range s.Container.Networks {
					e, err := pick(rec.Networks, r.Project.NetworkID(at.Name), taken)
					if err != nil {
						return spec.Routing{}, nil, err
					}
					record.Addresses = append(record.Addresses, e)
				}
			}
			stays[id] = true
			replicas = append(replicas, plan.Replica{ReplicaKey: record.ReplicaKey, Exists: true, Attached: true, Recorded: true, Record: record, Phase: spec.PhaseRunning, Health: spec.HealthHealthy})
		}
	}
	for _, record := range l.state.replicaRecords() {
		if record.Project == name && !stays[record.ID] {
			going = append(going, record)
		}
	}
	slices.SortFunc(replicas, func(a, b plan.Replica) int { return cmp.Compare(a.ID, b.ID) })
	project := plan.Project{Record: rec, Release: r}
	own := plan.Routes(plan.Desired{Projects: []plan.Project{project}}, plan.Observed{Now: now, Replicas: replicas})
	return l.beside(*l.routing.Load(), own, name), going, nil
}

// beside puts a project's own routes into all, in place of those it had.
func (l *Loop) beside(all, own spec.Routing, project string) spec.Routing {
	networks := map[string]spec.NetworkAddressing{}
	for _, p := range l.state.desired().Projects {
		for _, n := range p.Record.Networks {
			if p.Record.Name != project {
				networks[n.ID] = n
			}
		}
	}
	for _, n := range own.Networks {
		networks[n.ID] = n
	}
	out := spec.Routing{}
	for _, id := range slices.Sorted(maps.Keys(networks)) {
		out.Networks = append(out.Networks, networks[id])
	}
	out.Services = append(slices.DeleteFunc(slices.Clone(all.Services), func(s spec.ServiceRoute) bool { return s.Project == project }), own.Services...)
	out.Published = append(slices.DeleteFunc(slices.Clone(all.Published), func(p spec.PublishedRoute) bool { return p.Project == project }), own.Published...)
	slices.SortFunc(out.Services, func(a, b spec.ServiceRoute) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Network, b.Network))
	})
	slices.SortFunc(out.Published, func(a, b spec.PublishedRoute) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), a.HostIP.Compare(b.HostIP))
	})
	return out
}

// lastStarts says how long each service's last start took until it was ready, as
// the newest receipt that has one says.
func (l *Loop) lastStarts(ctx context.Context, project string) map[string]time.Duration {
	out := map[string]time.Duration{}
	all, err := l.Receipts(ctx, project)
	if err != nil {
		return out // a guess less, not a failure
	}
	for _, r := range all {
		took := map[string]time.Duration{}
		for _, s := range r.Steps {
			if s.Name == spec.StepCreate || s.Name == spec.StepStart || s.Name == spec.StepReady {
				took[s.Service] += s.Took.Std()
			}
		}
		for _, service := range slices.Sorted(maps.Keys(took)) {
			if out[service] == 0 {
				out[service] = took[service]
			}
		}
	}
	return out
}

// unserved says that the service has no replica that is ready, and which of its
// replicas nothing is waited for with then; empty = it has one.
func (l *Loop) unserved(project, service string) string {
	rec, _ := l.state.project(project)
	good := ""
	if r, ok := l.state.release(project, rec.Good); ok {
		if _, declared := r.Project.Service(service); declared {
			good = r.Generation(service)
		}
	}
	text := "no replica of " + service + " is ready now"
	for _, p := range l.status.Load().Projects {
		for _, s := range p.Services {
			if p.Name != project || s.Name != service {
				continue
			}
			early := false
			for _, r := range s.Replicas {
				if r.Routed || r.State == spec.StateReady || r.State == spec.StateUnreachable {
					return ""
				}
				early = early || r.Pid > 0 && r.Generation != good && r.State != spec.StateWarm
			}
			if early {
				text += ", and those of a release that never converged are stopped first"
			}
		}
	}
	return text
}

// gap says whether clients notice that the service changes; unserved is why they
// do before.
func gap(p spec.ServicePreview, s spec.Service, took time.Duration, unserved string) string {
	waits := "; connections are refused"
	if s.Hold > 0 {
		waits = fmt.Sprintf("; connections wait for up to %s", s.Hold.Std())
	}
	switch {
	case p.Change != spec.ChangeReplace || p.From == 0 || p.To == 0:
		return ""
	case p.Order == spec.StartFirst && unserved != "":
		return "start-first, but " + unserved + waits + " until a new one is ready"
	case p.Order == spec.StartFirst:
		return "none: start-first"
	case s.Update.Parallelism > 0 && s.Update.Parallelism < p.From:
		return fmt.Sprintf("none: stop-first, %d of %d at a time while the others serve", s.Update.Parallelism, p.From)
	}
	text := "stop-first: " + p.Name + " is down from its stop until it is ready again"
	if took > 0 {
		about := max(took.Round(time.Second), time.Second)
		text = fmt.Sprintf("stop-first: %s is down for about %s (its last start took %s)", p.Name, about, took.Round(100*time.Millisecond))
	}
	return text + waits
}

// trial says which canary the update of the service begins with; empty = none.
func trial(p spec.ServicePreview, s spec.Service, project string) string {
	if s.Canary == nil || p.Change != spec.ChangeReplace || p.From == 0 || p.To == 0 || p.Order != spec.StartFirst {
		return ""
	}
	share := ""
	if s.Canary.Weight > 0 {
		share = fmt.Sprintf(" with %d %% of the connections", s.Canary.Weight)
	}
	end := fmt.Sprintf("until `dunnage promote -p %s`", project)
	if s.Canary.For > 0 {
		end = fmt.Sprintf("for %s, or %s", s.Canary.For, end)
	}
	return fmt.Sprintf("first %d of %d%s, %s", min(s.Canary.Replicas, p.To), p.To, share, end)
}

// losses says what clients of a service lose for good: the service, a port of it,
// or their place on its allow list.
func losses(p spec.ServicePreview, prev *spec.Release, next spec.Project) []string {
	if prev == nil || p.From == 0 {
		return nil
	}
	old, _ := prev.Project.Service(p.Name)
	now, stays := next.Service(p.Name)
	var out []string
	switch {
	case !stays:
		out = append(out, p.Name+" is removed: nobody answers for it any more")
	case p.To == 0:
		out = append(out, "no replica of "+p.Name+" is left: nobody answers for it until it is scaled up")
	}
	for _, port := range old.Ports {
		if text := lost(port, p.Name, next); text != "" {
			out = append(out, text)
		}
	}
	if text := shutOut(old.Allow, now.Allow); text != "" && stays && len(now.Ports) > 0 {
		out = append(out, text)
	}
	return out
}

// shutOut says whom an allow list closes the ports to who could use them before;
// empty = nobody.
func shutOut(before, now []netip.Prefix) string {
	var shut []string
	for _, a := range before {
		if !slices.ContainsFunc(now, func(b netip.Prefix) bool { return b.Bits() <= a.Bits() && b.Contains(a.Addr()) }) {
			shut = append(shut, a.String())
		}
	}
	switch {
	case len(now) == 0: // open to all
		return ""
	case len(before) == 0:
		return "its ports are closed to clients that aren't on the new allow list"
	case len(shut) > 0:
		return "its ports are closed to clients of " + strings.Join(shut, ", ") + " that the new allow list doesn't have"
	}
	return ""
}

// lost says what becomes of a published port that the service doesn't have any
// more as it was; empty = nothing.
func lost(old spec.Port, service string, next spec.Project) string {
	name := fmt.Sprintf("port %d/%s", old.Published, old.Protocol)
	if old.HostIP.IsValid() {
		name += " at " + old.HostIP.String()
	}
	var others []string // addresses at which it stays
	for _, s := range next.Services {
		for _, p := range s.Ports {
			if p.Published != old.Published || p.Protocol != old.Protocol {
				continue
			}
			all := !p.HostIP.IsValid() || p.HostIP == old.HostIP || p.HostIP.IsUnspecified() && old.HostIP.IsValid() && p.HostIP.Is4() == old.HostIP.Is4()
			switch {
			case all && s.Name == service:
				return ""
			case all:
				return name + " goes over to " + s.Name
			case s.Name == service:
				others = append(others, p.HostIP.String())
			}
		}
	}
	if len(others) > 0 {
		return name + " stays at " + strings.Join(others, ", ") + " alone: elsewhere connections are refused"
	}
	return name + " goes: connections to it are refused"
}

// joinedGap is a gap with what is lost beside it: then it is never "none".
func joinedGap(gap string, losses []string) string {
	if len(losses) == 0 {
		return gap
	}
	if gap != "" {
		losses = append([]string{strings.TrimPrefix(gap, "none: ")}, losses...)
	}
	return strings.Join(losses, "; ")
}

// changedSecrets collects the new versions that any service gets.
func changedSecrets(all []spec.ServicePreview) []string {
	var out []string
	for _, s := range all {
		for _, c := range s.Changed {
			if text, ok := strings.CutPrefix(c, "secret "); ok && !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	slices.Sort(out)
	return out
}
