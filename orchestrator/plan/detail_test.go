package plan

import (
	"strings"
	"testing"

	"dunnage/spec"
)

// TestDetailOfPhases: a replica that isn't running says so, not how an earlier
// run of it ended.
func TestDetailOfPhases(t *testing.T) {
	for phase, want := range map[spec.Phase]string{spec.PhasePaused: "paused", spec.PhaseLost: "shim"} {
		r := &Replica{Exists: true, Phase: phase, Record: spec.ReplicaRecord{Exit: &spec.Exit{Code: 137}}}
		if got := detail(r); !strings.Contains(got, want) {
			t.Errorf("a replica that is %s: %q, want it to speak of %q", phase, got, want)
		}
	}
}
