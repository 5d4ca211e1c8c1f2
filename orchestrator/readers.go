package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dunnage/spec"
)

// Status returns the last snapshot, with the operations that are at work now.
// It never waits for containerd: what is known before the first look has to do.
func (l *Loop) Status(ctx context.Context) (spec.Status, error) {
	s, err := l.snapshot(ctx)
	if err != nil {
		return s, err
	}
	s.Projects, s.Events = l.busy(s.Projects), l.events.since()
	if text := l.guard.says(l.cfg.Clock.Now()); text != "" {
		s.Problems = append([]string{text}, s.Problems...)
	}
	return s, nil
}

// busy adds the operations at work, also those on projects that have nothing
// to show yet.
func (l *Loop) busy(projects []spec.ProjectStatus) []spec.ProjectStatus {
	projects = slices.Clone(projects) // the snapshot is others' too
	running := l.ops.running()
	for i := range projects {
		if op, ok := running[projects[i].Name]; ok {
			projects[i].Busy = atWork(op, l.cfg.Clock.Now())
			delete(running, op.Project)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(running)) {
		projects = append(projects, spec.ProjectStatus{Name: name, Busy: atWork(running[name], l.cfg.Clock.Now())})
	}
	slices.SortFunc(projects, func(a, b spec.ProjectStatus) int { return strings.Compare(a.Name, b.Name) })
	return projects
}

// Rules returns the nat rules as planned and as the kernel has them.
func (l *Loop) Rules(ctx context.Context) (spec.RuleSet, error) {
	set, err := l.cfg.Network.RuleSet(ctx, *l.routing.Load())
	set.Held = l.repairsNothing()
	if why := l.holding(); why != "" && err != nil { // with a wrong pool, rules can't even be rendered
		err = errors.New(why)
	}
	return set, err
}

// repairsNothing says why the agent doesn't make the rules as they should be:
// it holds, or can't write them; empty = it does.
func (l *Loop) repairsNothing() string {
	if why := l.holding(); why != "" {
		return why
	}
	if err := l.unapplied.Load(); err != nil {
		return "the agent can't write the rules: " + (*err).Error() + "; it tries again and again, and `dunnage events --no-follow` says since when"
	}
	return ""
}

// Networks lists the networks of all projects with their service addresses.
func (l *Loop) Networks(context.Context) ([]spec.NetworkStatus, error) {
	var out []spec.NetworkStatus
	for _, name := range l.state.projectNames() {
		p, _ := l.state.project(name)
		for _, n := range p.Networks {
			s := spec.NetworkStatus{NetworkAddressing: n, Project: name}
			for _, a := range p.Addresses {
				if a.Network == n.ID {
					s.Services = append(s.Services, spec.ServiceAddress{Service: a.Service, Addr: a.Addr, Addr6: a.Addr6})
				}
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// ImageUsers says which releases need each digest.
func (l *Loop) ImageUsers() map[string][]string {
	out := map[string][]string{}
	for _, name := range l.state.projectNames() {
		for _, r := range l.state.history(name) {
			seen := map[string]bool{}
			for _, s := range r.Project.Services {
				d := r.Images[s.Name].Digest
				if !seen[d] {
					seen[d] = true
					out[d] = append(out[d], fmt.Sprintf("%s release %d", name, r.Number))
				}
			}
		}
	}
	return out
}
