package orchestrator

import (
	"context"
	"fmt"

	"dunnage/spec"
)

// Status returns the last snapshot. It waits for the first one, and for nothing
// else.
func (l *Loop) Status(ctx context.Context) (spec.Status, error) {
	if err := l.awaitLook(ctx); err != nil {
		return spec.Status{}, err
	}
	return *l.status.Load(), nil
}

// Rules returns the nat rules as planned and as the kernel has them.
func (l *Loop) Rules(ctx context.Context) (spec.RuleSet, error) {
	return l.cfg.Network.RuleSet(ctx, *l.routing.Load())
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
