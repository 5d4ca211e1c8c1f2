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
