package plan_test

import (
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// TestRestartPolicy has a replica exit a second ago and says when it starts
// again: -1 = never.
func TestRestartPolicy(t *testing.T) {
	always := spec.RestartPolicy{Mode: spec.RestartAlways}
	for name, tc := range map[string]struct {
		policy   spec.RestartPolicy
		code     int
		failures int
		in       time.Duration
	}{
		"no":                                {spec.RestartPolicy{Mode: spec.RestartNo}, 1, 1, -1},
		"always, at once":                   {always, 0, 1, 0},
		"then later each time":              {always, 1, 6, 600 * time.Millisecond},
		"at most half a minute":             {always, 1, 90, 29 * time.Second},
		"unless-stopped":                    {spec.RestartPolicy{Mode: spec.RestartUnlessStopped}, 0, 1, 0},
		"on-failure after a success":        {spec.RestartPolicy{Mode: spec.RestartOnFailure}, 0, 1, -1},
		"on-failure after a failure":        {spec.RestartPolicy{Mode: spec.RestartOnFailure}, 1, 1, 0},
		"on-failure:3, the third restart":   {spec.RestartPolicy{Mode: spec.RestartOnFailure, Max: 3}, 1, 3, 0},
		"and no fourth":                     {spec.RestartPolicy{Mode: spec.RestartOnFailure, Max: 3}, 1, 4, -1},
		"any with a bound":                  {spec.RestartPolicy{Mode: spec.RestartAlways, Max: 1}, 0, 2, -1},
		"a delay":                           {spec.RestartPolicy{Mode: spec.RestartAlways, Delay: spec.Duration(5 * time.Second)}, 1, 1, 4 * time.Second},
		"is the same however often it dies": {spec.RestartPolicy{Mode: spec.RestartAlways, Delay: spec.Duration(5 * time.Second)}, 1, 50, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := well(1, exited(tc.code, time.Second), recorded(tc.failures))
			r.Record.Restart = tc.policy
			_, _, _, p := rollout{}.decide(r, well(2), well(3))
			in := time.Duration(-1)
			for _, a := range p.Actions {
				if _, ok := a.(plan.Start); ok {
					in = 0
				}
			}
			if in < 0 && !p.Wake.IsZero() && p.Wake.Before(noon.Add(time.Minute)) {
				in = p.Wake.Sub(noon)
			}
			if in > 0 {
				in = in.Round(100 * time.Millisecond)
			}
			if in != tc.in {
				t.Errorf("starts in %s, want %s", in, tc.in)
			}
		})
	}
}

func TestFailuresInARow(t *testing.T) {
	r := spec.ReplicaRecord{Failures: 4}
	if n := plan.Failures(r, 9*time.Second); n != 5 {
		t.Errorf("a short run: %d", n)
	}
	if n := plan.Failures(r, 10*time.Second); n != 1 {
		t.Errorf("a long run: %d", n)
	}
	r.Restart.Window = spec.Duration(time.Minute)
	if n := plan.Failures(r, 10*time.Second); n != 5 {
		t.Errorf("not long by its own window: %d", n)
	}
}
