package spec_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dunnage/spec"
)

func TestRatesOf(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	started := at.Add(-time.Hour)
	before := spec.Usage{
		At: at, Started: started, CPU: spec.Duration(time.Minute), Periods: 1000, ThrottledPeriods: 100,
		Received: 1000, Sent: 2000, Read: 3000, Written: 4000,
	}
	now := spec.Usage{
		At: at.Add(2 * time.Second), Started: started, CPU: spec.Duration(time.Minute + 3*time.Second), Periods: 1200, ThrottledPeriods: 150,
		Received: 1200, Sent: 2400, Read: 3600, Written: 4800,
	}
	restarted := now
	restarted.Started, restarted.CPU, restarted.Periods, restarted.ThrottledPeriods = at.Add(time.Second), spec.Duration(time.Second/2), 100, 100
	restarted.Read, restarted.Written = 10, 20
	young := restarted
	young.Started = young.At.Add(-10 * time.Millisecond)
	unknown := now
	unknown.Started = time.Time{}
	for name, tc := range map[string]struct {
		before, now spec.Usage
		want        *spec.Rates
	}{
		"twice the same process":                 {before, now, &spec.Rates{Over: spec.Duration(2 * time.Second), Cores: 1.5, Throttled: 0.25, Received: 100, Sent: 200, Read: 300, Written: 400}},
		"restarted in between, on the same link": {before, restarted, &spec.Rates{Over: spec.Duration(time.Second), Cores: 0.5, Throttled: 1, Received: 200, Sent: 400, Read: 10, Written: 20}},
		"never counted before":                   {spec.Usage{}, restarted, &spec.Rates{Over: spec.Duration(time.Second), Cores: 0.5, Throttled: 1, Received: 1200, Sent: 2400, Read: 10, Written: 20}},
		"just started":                           {spec.Usage{}, young, nil},
		"nothing to compare with":                {spec.Usage{}, unknown, nil},
		"counted twice at once":                  {now, now, nil},
		"counters that went back unexplained":    {now, func() spec.Usage { u := before; u.At = now.At.Add(time.Second); return u }(), &spec.Rates{Over: spec.Duration(time.Second)}},
	} {
		if diff := cmp.Diff(tc.want, spec.RatesOf(tc.before, tc.now)); diff != "" {
			t.Errorf("%s: other than wanted:\n%s", name, diff)
		}
	}
}
