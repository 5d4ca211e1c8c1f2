package main

import (
	"bytes"
	"strings"
	"testing"

	"dunnage/spec"
)

// TestPlanOfAPausedRollout: a deploy of the same manifest isn't nothing while
// the rollout of the present release is paused.
func TestPlanOfAPausedRollout(t *testing.T) {
	v := spec.Preview{Project: "shop", From: 2, Services: []spec.ServicePreview{{Name: "web", Change: spec.ChangeNone, From: 1, To: 1}}}
	for paused, want := range map[string]bool{"": true, "on request": false} {
		var out bytes.Buffer
		p := program{stdout: &out}
		v.Paused = paused
		if err := p.printPreview(v); err != nil || strings.Contains(out.String(), "nothing to do") != want {
			t.Errorf("paused %q: %s, %v", paused, out.String(), err)
		}
	}
}
