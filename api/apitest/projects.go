package apitest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dunnage/spec"
)

// Deploy implements api.Backend.
func (f *Fake) Deploy(_ context.Context, r spec.DeployRequest) (spec.Operation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("deploy %s force=%t remove-orphans=%t%s", r.Project.Name, r.Force, r.RemoveOrphans, f.bringValues(r)))
	if err := f.refused(); err != nil {
		return spec.Operation{}, err
	}
	prev := f.preview(r)
	if !r.Force && !slices.ContainsFunc(prev.Services, func(s spec.ServicePreview) bool {
		return s.Change != spec.ChangeNone && s.Change != spec.ChangeOrphan
	}) {
		return f.unchanged(r.Project.Name), nil
	}
	if p := f.projects[r.Project.Name]; p != nil {
		clear(p.stopped)
	}
	return f.roll("deploy", "deploy", r.Project, prev.Services), nil
}

// unchanged records an operation that had nothing to do.
func (f *Fake) unchanged(name string) spec.Operation {
	rel := f.current(name)
	op := f.newOperation("deploy", name)
	op.State, op.Release, op.Ended = spec.OperationUnchanged, rel.Number, op.Started
	for _, s := range rel.Project.Services {
		op.Services = append(op.Services, outcome(s, spec.ChangeNone))
	}
	return *op
}

func (f *Fake) newOperation(kind, name string) *spec.Operation {
	op := &spec.Operation{ID: fmt.Sprintf("op%d", len(f.operations)+1), Project: name, Kind: kind, State: spec.OperationRolling, Started: f.Now}
	f.operations[op.ID] = op
	return op
}

// roll makes p the desired release and reports it converging. With Hold the
// end comes with Release.
func (f *Fake) roll(kind, reason string, p spec.Project, changes []spec.ServicePreview) spec.Operation {
	op := f.newOperation(kind, p.Name)
	pr := f.projects[p.Name]
	if pr == nil {
		pr = &project{stopped: map[string]bool{}, details: map[string]string{}, trials: map[string]int{}, causes: map[int]string{}}
		f.projects[p.Name] = pr
	}
	op.Release = len(pr.releases) + 1
	if kind != "down" {
		pr.releases = append(pr.releases, spec.Release{Number: op.Release, Created: f.Now, Reason: reason, Project: p, Images: pins(p)})
	}
	f.emit(spec.Event{Kind: spec.EventRelease, Operation: op.ID, Project: p.Name, Message: fmt.Sprintf("release %d", op.Release)})
	cause := f.failNext
	f.failNext = ""
	end := func() { f.end(op, p, changes, cause) }
	if f.hold {
		f.held = append(f.held, end)
	} else {
		end()
	}
	started := *op
	started.State = spec.OperationRolling // as it was when the call came
	return started
}

// end tells the rest of an operation's story.
func (f *Fake) end(op *spec.Operation, p spec.Project, changes []spec.ServicePreview, cause string) {
	for _, s := range p.Services {
		c := spec.ChangeNone
		for _, sp := range changes {
			if sp.Name == s.Name {
				c = sp.Change
			}
		}
		o := outcome(s, c)
		if cause == "" {
			f.tell(op, s, c)
		} else {
			o.Ready, o.Detail = 0, cause
		}
		op.Services = append(op.Services, o)
	}
	defer func() { f.account(op, p, changes) }()
	op.Ended = f.Now.Add(2 * time.Second)
	op.State = spec.OperationDone
	last := spec.Event{Kind: spec.EventDone, Operation: op.ID, Project: p.Name, Message: "done"}
	if cause != "" {
		op.Cause, last.Kind, last.Message = cause, spec.EventFailed, cause
		for _, l := range f.lines {
			op.Replica, op.Log = l.Replica, append(op.Log, string(l.Text))
		}
		f.projects[p.Name].causes[op.Release] = cause
		op.State = spec.OperationFailed
		if pr := f.projects[p.Name]; len(pr.releases) > 1 {
			op.State = spec.OperationRolledBack
			pr.releases = append(pr.releases, pr.releases[len(pr.releases)-2])
		}
	}
	if op.Kind == "down" {
		delete(f.projects, p.Name)
	}
	f.emit(last)
}

func (f *Fake) tell(op *spec.Operation, s spec.Service, c spec.Change) {
	if c == spec.ChangeNone {
		return
	}
	gen := generation(s)
	for n := 1; n <= s.Replicas; n++ {
		id := spec.ReplicaID(op.Project, s.Name, gen, n)
		for _, k := range []spec.EventKind{spec.EventCreated, spec.EventStarted, spec.EventReady} {
			f.emit(spec.Event{Kind: k, Operation: op.ID, Project: op.Project, Service: s.Name, Replica: id, Message: fmt.Sprintf("%s %s", id, k)})
		}
	}
	f.emit(spec.Event{Kind: spec.EventConverged, Operation: op.ID, Project: op.Project, Service: s.Name, Message: fmt.Sprintf("%s: %d/%d ready", s.Name, s.Replicas, s.Replicas)})
}

func outcome(s spec.Service, c spec.Change) spec.ServiceOutcome {
	o := spec.ServiceOutcome{Name: s.Name, Change: c, Ready: s.Replicas, Wanted: s.Replicas, Ports: s.Ports}
	if c != spec.ChangeNone {
		o.Duration = spec.Duration(1500 * time.Millisecond)
	}
	return o
}

func pins(p spec.Project) map[string]spec.PinnedImage {
	m := map[string]spec.PinnedImage{}
	for _, s := range p.Services {
		m[s.Name] = spec.PinnedImage{Ref: s.Container.Image, Digest: digest(s)}
	}
	return m
}

func digest(s spec.Service) string { return "sha256:" + generation(s) }

// generation depends on less than the real one, so that golden files outlive a
// new field of spec.Container.
func generation(s spec.Service) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", s.Container.Image, s.Container.Epoch))
	return hex.EncodeToString(sum[:])
}

// Change implements api.Backend.
func (f *Fake) Change(_ context.Context, name string, r spec.ChangeRequest) (spec.Operation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("%s %s services=%v replicas=%v release=%d volumes=%t forget=%t", r.Kind, name, r.Services, r.Replicas, r.Release, r.Volumes, r.Forget))
	if err := f.refused(); err != nil {
		return spec.Operation{}, err
	}
	if f.projects[name] == nil {
		return spec.Operation{}, fmt.Errorf("project %s: %w; projects here: %s", name, spec.ErrNotFound, f.names())
	}
	p := clone(f.current(name).Project)
	changes, err := f.apply(name, &p, r)
	if err != nil {
		return spec.Operation{}, err
	}
	return f.roll(r.Kind, reason(r), p, changes), nil
}

// apply changes p as r asks.
func (f *Fake) apply(name string, p *spec.Project, r spec.ChangeRequest) (changes []spec.ServicePreview, err error) {
	pr := f.projects[name]
	for _, s := range append(slices.Clone(r.Services), slices.Sorted(maps.Keys(r.Replicas))...) {
		if _, ok := p.Service(s); !ok {
			return nil, fmt.Errorf("project %s has no service %q: %w", name, s, spec.ErrNotFound)
		}
	}
	if r.Kind == "rollback" {
		i := slices.IndexFunc(pr.releases, func(o spec.Release) bool { return o.Number == r.Release })
		if r.Release == 0 {
			i = len(pr.releases) - 2
		}
		if i < 0 {
			return nil, fmt.Errorf("project %s has no release %d to go back to: %w", name, r.Release, spec.ErrRefused)
		}
		*p = clone(pr.releases[i].Project)
	}
	for i := range p.Services {
		s := &p.Services[i]
		c := f.applyService(pr, s, r)
		changes = append(changes, spec.ServicePreview{Name: s.Name, Change: c})
	}
	return changes, nil
}

func (f *Fake) applyService(pr *project, s *spec.Service, r spec.ChangeRequest) spec.Change {
	asked := len(r.Services) == 0 || slices.Contains(r.Services, s.Name)
	switch n, ok := r.Replicas[s.Name]; {
	case ok:
		s.Replicas = n
		return spec.ChangeScale
	case r.Kind == "restart" && asked:
		s.Container.Epoch++
		return spec.ChangeReplace
	case r.Kind == "stop" && asked, r.Kind == "start" && asked:
		pr.stopped[s.Name] = r.Kind == "stop"
		return spec.ChangeScale
	case r.Kind == "down":
		return spec.ChangeRemove
	case r.Kind == "rollback":
		return spec.ChangeReplace
	}
	return spec.ChangeNone
}

func reason(r spec.ChangeRequest) string {
	words := []string{r.Kind}
	for _, s := range slices.Sorted(maps.Keys(r.Replicas)) {
		words = append(words, fmt.Sprintf("%s=%d", s, r.Replicas[s]))
	}
	return strings.Join(append(words, r.Services...), " ")
}

func clone(p spec.Project) spec.Project {
	p.Services = slices.Clone(p.Services)
	return p
}

// current is the newest release of a project that exists.
func (f *Fake) current(name string) spec.Release {
	r := f.projects[name].releases
	return r[len(r)-1]
}

// Preview implements api.Backend.
func (f *Fake) Preview(_ context.Context, r spec.DeployRequest) (spec.Preview, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.preview(r), nil
}

func (f *Fake) preview(r spec.DeployRequest) spec.Preview {
	out := spec.Preview{Project: r.Project.Name}
	var old spec.Project
	if f.projects[r.Project.Name] != nil {
		rel := f.current(r.Project.Name)
		out.From, old = rel.Number, rel.Project
	}
	for _, s := range r.Project.Services {
		was, had := old.Service(s.Name)
		sp := spec.ServicePreview{Name: s.Name, Order: s.Update.Order, From: was.Replicas, To: s.Replicas, Change: compare(was, s, had)}
		if sp.Change == spec.ChangeCreate {
			out.Pull = append(out.Pull, spec.ImagePull{Ref: s.Container.Image, Size: 12 << 20, Known: s.Name != "db"})
		}
		if sp.Change == spec.ChangeReplace && was.Container.Image != s.Container.Image {
			sp.Changed = []string{"image"}
		}
		if pr := f.projects[r.Project.Name]; pr != nil && pr.stopped[s.Name] {
			if sp.From = 0; sp.Change == spec.ChangeNone {
				sp.Change, sp.Changed = spec.ChangeStart, []string{"stopped on request"}
			}
		}
		if s.Update.Order == spec.StopFirst {
			out.Notes = append(out.Notes, s.Name+" mounts a writable volume: the old replica stops before the new one starts")
		}
		out.Services = append(out.Services, sp)
	}
	for _, s := range old.Services {
		if _, ok := r.Project.Service(s.Name); !ok {
			out.Services = append(out.Services, absent(s, r))
		}
	}
	return out
}

func absent(s spec.Service, r spec.DeployRequest) spec.ServicePreview {
	stays := spec.ServicePreview{Name: s.Name, From: s.Replicas, To: s.Replicas, Change: spec.ChangeOrphan}
	switch {
	case slices.Contains(r.Inactive, s.Name):
		stays.Change = spec.ChangeNone
	case r.RemoveOrphans:
		return spec.ServicePreview{Name: s.Name, From: s.Replicas, Change: spec.ChangeRemove}
	}
	return stays
}

func compare(was, is spec.Service, had bool) spec.Change {
	switch {
	case !had:
		return spec.ChangeCreate
	case !sameJSON(was.Container, is.Container):
		return spec.ChangeReplace
	case was.Replicas != is.Replicas:
		return spec.ChangeScale
	case !sameJSON(was, is):
		return spec.ChangeUpdate
	}
	return spec.ChangeNone
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// Releases implements api.Backend.
func (f *Fake) Releases(_ context.Context, name string) ([]spec.Release, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.projects[name]
	if p == nil {
		return nil, fmt.Errorf("project %s: %w; projects here: %s", name, spec.ErrNotFound, f.names())
	}
	out := slices.Clone(p.releases)
	for i := range out {
		out[i].State = spec.ReleaseRan
	}
	out[len(out)-1].State = spec.ReleaseCurrent
	for i := range out {
		if cause := p.causes[out[i].Number]; cause != "" {
			out[i].State, out[i].Cause = spec.ReleaseFailed, cause
		}
	}
	slices.Reverse(out)
	return out, nil
}

// Status implements api.Backend.
func (f *Fake) Status(context.Context) (spec.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panicNext {
		f.panicNext = false
		panic("asked for by the test")
	}
	out := spec.Status{At: f.Now, Started: f.Now.Add(-time.Minute), Events: f.Now.Add(-time.Minute), Problems: f.problems, Projects: []spec.ProjectStatus{}}
	for i, name := range slices.Sorted(maps.Keys(f.projects)) {
		rel := f.current(name)
		ps := spec.ProjectStatus{Name: name, Release: rel.Number}
		for j, s := range rel.Project.Services {
			ps.Services = append(ps.Services, f.serviceStatus(name, rel, s, i, j))
		}
		out.Projects = append(out.Projects, ps)
	}
	return out, nil
}

func (f *Fake) serviceStatus(name string, rel spec.Release, s spec.Service, i, j int) spec.ServiceStatus {
	p, gen := f.projects[name], generation(s)
	st := spec.ServiceStatus{Name: s.Name, Generation: gen, Wanted: s.Replicas, Ready: s.Replicas, Stopped: p.stopped[s.Name], Trial: p.trials[s.Name], Ports: s.Ports}
	for n := 1; n <= s.Replicas; n++ {
		r := spec.ReplicaStatus{
			Project: name, Service: s.Name, Replica: spec.ReplicaID(name, s.Name, gen, n), Number: n, Generation: gen, Release: rel.Number,
			Image: s.Container.Image, State: spec.StateReady, Health: spec.HealthHealthy, Pid: 1000 + 10*j + n,
			Addresses: []netip.Addr{address(i, 10*j+n+1)}, Ports: s.Ports, Routed: true, Started: f.Now.Add(-3 * time.Minute),
		}
		if p.stopped[s.Name] {
			r.State, r.Health, r.Pid, r.Ports, r.Routed, r.Started = spec.StateStopped, spec.HealthUnknown, 0, nil, false, time.Time{}
			st.Ready = 0
		} else if d := p.details[s.Name]; d != "" {
			r.State, r.Health, r.Detail, r.Ports, r.Routed, r.Restarts = spec.StateUnhealthy, spec.HealthUnhealthy, d, nil, false, 4
			st.Ready = 0
		}
		st.Replicas = append(st.Replicas, r)
	}
	return st
}

func address(network, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 201, byte(network), byte(host)})
}

func prefix(network int) netip.Prefix { return netip.PrefixFrom(address(network, 0), 24) }
