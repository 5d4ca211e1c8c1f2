package plan_test

import (
	"testing"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// Nothing is made or started from an image in doubt, and people see why; what
// runs and what has another image goes on.
func TestNothingStartsFromADoubtfulImage(t *testing.T) {
	const digest = "sha256:aa"
	for _, tc := range []struct {
		name string
		in   []spec.DoubtfulImage
		want string
	}{
		{"none", nil, ""},
		{"another", []spec.DoubtfulImage{{Digest: "sha256:bb"}}, ""},
		{"not known which", []spec.DoubtfulImage{{}}, "its image is being verified since the power was cut"},
		{"being verified", []spec.DoubtfulImage{{Digest: digest}}, "its image is being verified since the power was cut"},
		{"damaged", []spec.DoubtfulImage{{Digest: digest, Error: "x"}}, "its image was damaged when the power was cut, and couldn't be mended"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			release := spec.Release{
				Number: 1, Project: spec.Project{Name: "shop", Services: []spec.Service{{Name: "web", Replicas: 1}}},
				Images: map[string]spec.PinnedImage{"web": {Ref: "example.org/web:1", Digest: digest}},
			}
			d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "shop", Desired: 1, Good: 1}, Release: release, Good: &release}}}
			created := 0
			for _, a := range plan.Make(d, plan.Observed{Now: noon, Doubtful: tc.in}).Actions {
				if _, ok := a.(plan.Create); ok {
					created++
				}
			}
			key := spec.ReplicaKey{ID: spec.ReplicaID("shop", "web", release.Generation("web"), 1), Project: "shop", Service: "web", Generation: release.Generation("web"), Number: 1}
			exit := &spec.Exit{At: noon.Add(-1), Lost: true}
			there := plan.Replica{ReplicaKey: key, Exists: true, Attached: true, Recorded: true, Phase: spec.PhaseExited, ExitedAt: noon,
				Record: spec.ReplicaRecord{ReplicaKey: key, Image: "example.org/web:1@" + digest, Release: 1, Exit: exit, Requested: true}}
			p := plan.Make(d, plan.Observed{Now: noon, Doubtful: tc.in, Replicas: []plan.Replica{there}})
			started := 0
			for _, a := range p.Actions {
				if _, ok := a.(plan.Start); ok {
					started++
				}
			}
			free := tc.want == ""
			if (created == 1) != free || (started == 1) != free {
				t.Errorf("%d created, %d started", created, started)
			}
			if why := p.Status[0].Services[0].Waiting; !free && why != tc.want {
				t.Errorf("it waits: %q, want %q", why, tc.want)
			}
			there.Phase, there.Health, there.Record.Requested = spec.PhaseRunning, spec.HealthHealthy, false
			for _, a := range plan.Make(d, plan.Observed{Now: noon, Doubtful: tc.in, Replicas: []plan.Replica{there}}).Actions {
				if _, ok := a.(plan.Stop); ok {
					t.Error("a running one is stopped")
				}
			}
		})
	}
}
