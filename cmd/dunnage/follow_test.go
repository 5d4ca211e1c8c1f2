package main

import (
	"context"
	"io"
	"testing"

	"dunnage/spec"
)

func TestVerdict(t *testing.T) {
	sick := []spec.ServiceOutcome{{Name: "web", Wanted: 2}}
	for _, c := range []struct {
		name string
		op   spec.Operation
		want int
	}{
		{"done", spec.Operation{State: spec.OperationDone, Release: 1}, exitDone},
		{"unchanged", spec.Operation{State: spec.OperationUnchanged, Release: 1}, exitDone},
		{"an image can't be pulled", spec.Operation{State: spec.OperationFailed}, exitError},
		{"the first release doesn't converge", spec.Operation{State: spec.OperationFailed, Release: 1, Services: sick}, exitNotConverged},
		{"a stop doesn't come to its end", spec.Operation{State: spec.OperationFailed, Services: sick}, exitNotConverged},
		{"rolled back", spec.Operation{State: spec.OperationRolledBack, Release: 2, Services: sick}, exitNotConverged},
	} {
		p := &program{stderr: io.Discard}
		if got := p.finish(context.Background(), verdict(c.op)); got != c.want {
			t.Errorf("%s: exit code %d, want %d", c.name, got, c.want)
		}
	}
}

// The next step names a log only where something may be in it.
func TestNextStep(t *testing.T) {
	short := []spec.ServiceOutcome{{Name: "db", Ready: 1, Wanted: 1}, {Name: "web", Wanted: 2}}
	everywhere := "`dunnage ps -p shop` and `dunnage events -p shop --since 10m`"
	for name, tc := range map[string]struct {
		op   spec.Operation
		want string
	}{
		"a replica that wrote":       {spec.Operation{Replica: "shop-web-1", Log: []string{"panic"}, Services: short}, "see `dunnage logs -p shop shop-web-1`, " + everywhere},
		"one that wrote nothing":     {spec.Operation{Replica: "shop-web-1", Services: short}, "see " + everywhere},
		"a service that isn't ready": {spec.Operation{Services: short}, "see `dunnage logs -p shop web`, " + everywhere},
		"all are ready":              {spec.Operation{Services: short[:1]}, "see " + everywhere},
	} {
		tc.op.Project = "shop"
		if got := nextStep(tc.op); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
