package apitest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"dunnage/spec"
)

// Receipts implements api.Backend.
func (f *Fake) Receipts(_ context.Context, name string) ([]spec.Receipt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.projects[name]
	if p == nil {
		return nil, fmt.Errorf("project %s: %w; projects here: %s", name, spec.ErrNotFound, f.names())
	}
	out := slices.Clone(p.receipts)
	slices.Reverse(out)
	return out, nil
}

// ChangeReceipt changes the newest receipt of a project.
func (f *Fake) ChangeReceipt(name string, change func(*spec.Receipt)) {
	f.locked(func() {
		rs := f.projects[name].receipts
		change(&rs[len(rs)-1])
	})
}

// account writes the receipt of an operation that rolled; mu is held.
func (f *Fake) account(op *spec.Operation, p spec.Project, changes []spec.ServicePreview) {
	pr := f.projects[p.Name]
	if pr == nil || !slices.Contains([]string{"deploy", "rollback", "scale", "restart", "secret"}, op.Kind) {
		return
	}
	r := spec.Receipt{
		Project: p.Name, Number: len(pr.receipts) + 1, Release: op.Release, From: op.Release - 1, Operation: op.ID, Kind: op.Kind,
		Outcome: op.State, Cause: op.Cause, Started: op.Started, Ended: op.Ended,
		Drained: 3, Draining: 2, Commits: 2, Rules: spec.RuleChange{Added: 14, Removed: 12}, Images: map[string]string{}, Secrets: map[string]int{},
	}
	step := func(name, service string, from, took int) {
		r.Steps = append(r.Steps, spec.ReceiptStep{
			Name: name, Service: service, Times: 1, At: r.Started.Add(time.Duration(from) * time.Millisecond), Took: spec.Duration(took) * spec.Duration(time.Millisecond),
		})
	}
	step(spec.StepPull, "", 0, 250)
	for _, s := range p.Services {
		r.Images[s.Name] = digest(s)
		if !slices.ContainsFunc(changes, func(c spec.ServicePreview) bool { return c.Name == s.Name && c.Change != spec.ChangeNone }) {
			continue
		}
		step(spec.StepCreate, s.Name, 250, 90)
		step(spec.StepStart, s.Name, 340, 30)
		step(spec.StepReady, s.Name, 370, 1600)
		for _, port := range s.Ports {
			r.Visits = append(r.Visits, spec.VisitTally{
				VisitTarget: spec.VisitTarget{Project: p.Name, Service: s.Name, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), port.Published), Port: port.Published},
				Sent:        1204, LongestGap: spec.Duration(12 * time.Millisecond),
			})
		}
	}
	step(spec.StepRules, "", 1970, 14)
	pr.receipts = append(pr.receipts, r)
}
