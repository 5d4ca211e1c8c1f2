package plan

import (
	"time"

	"dunnage/spec"
)

// rampSteps is in how many steps a new replica's share grows: each is a swap of
// the rules.
const rampSteps = 10

// weights are the backends' parts of the connections by replica ID, in lowest
// terms; nil when all are equal.
func (v *view) weights(backends []*Replica, now time.Time) map[string]int {
	out := map[string]int{}
	fresh := 0
	for _, r := range backends {
		if r.Generation == v.gen {
			fresh++
		}
	}
	old := len(backends) - fresh
	trial := v.update.canary && v.Canary.Weight > 0 && fresh > 0 && old > 0
	divisor := 0
	for _, r := range backends {
		w := v.rampStep(r, now)
		switch {
		case trial && r.Generation == v.gen:
			w *= v.Canary.Weight * old
		case trial:
			w *= (100 - v.Canary.Weight) * fresh
		}
		out[r.ID] = w
		divisor = gcd(divisor, w)
	}
	equal := true
	for _, r := range backends {
		out[r.ID] /= divisor
		equal = equal && out[r.ID] == 1
	}
	if equal {
		return nil
	}
	return out
}

// shares are the parts of the new connections, from 0 to 1, that the backends take
// that the rules name, by replica ID.
func (v *view) shares(backends []*Replica, now time.Time) map[string]float64 {
	weights := v.weights(backends, now)
	out := map[string]float64{}
	sum := 0.0
	for _, r := range backends {
		if r.Named {
			out[r.ID] = float64(max(1, weights[r.ID])) // nil = all equal
			sum += out[r.ID]
		}
	}
	for _, r := range backends {
		if r.Named {
			out[r.ID] /= sum
		}
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// rampStep is how much of its full share a replica takes, in steps.
func (v *view) rampStep(r *Replica, now time.Time) int {
	ramp := v.Ramp.Std()
	if ramp <= 0 || r.Generation != v.gen {
		return rampSteps
	}
	if r.RoutedSince.IsZero() {
		return 1
	}
	return min(rampSteps, 1+int(rampSteps*now.Sub(r.RoutedSince)/ramp))
}

// rampWakes is when the first of the replicas takes its next step; zero = none
// does any more.
func (v *view) rampWakes(now time.Time) time.Time {
	var first time.Time
	for _, r := range v.current {
		if step := v.rampStep(r, now); step < rampSteps && !r.RoutedSince.IsZero() {
			at := r.RoutedSince.Add(time.Duration(step) * v.Ramp.Std() / rampSteps)
			if first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	return first
}

// weigh gives the backends of a route their weights.
func weigh(backends []spec.Backend, weights map[string]int) []spec.Backend {
	for i := range backends {
		backends[i].Weight = weights[backends[i].Replica]
	}
	return backends
}
