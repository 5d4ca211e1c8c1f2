package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// has gives the replica a layer of so many bytes, in a run of such a length.
func has(bytes int64, run time.Duration) func(*plan.Replica) {
	return func(r *plan.Replica) { r.Written, r.StartedAt = bytes, noon.Add(-run) }
}

// TestExchange: which replica of two, with a third that stands in for them, gives
// its place to one with an empty layer of at most 100 bytes.
func TestExchange(t *testing.T) {
	s := scene{order: spec.StartFirst, wanted: 2}
	of := release(1, "new", s)
	of.Project.Services[0].Disk = 100
	again := func(failures int) func(*plan.Replica) {
		return func(r *plan.Replica) {
			r.Record.Restarts, r.Record.Failures, r.Record.Exit = 3, failures, &spec.Exit{At: r.StartedAt, Code: 137, Disk: 101}
		}
	}
	crash := func(failures int) func(*plan.Replica) {
		return func(r *plan.Replica) {
			exited(1, time.Second)(r)
			r.Record.Exit, r.Record.Running, r.Record.Failures = &spec.Exit{At: noon, Code: 1}, false, failures
		}
	}
	type edits = []func(*plan.Replica)
	for name, tc := range map[string]struct {
		replicas [3]edits // 1, 2 and the stand-in
		want     string
	}{
		"the stand-in has its turn":              {[3]edits{{has(101, time.Minute), again(3)}, {has(0, time.Minute), again(3)}, {has(900, time.Hour)}}, "3"},
		"and not before others have theirs":      {[3]edits{{has(101, time.Minute), again(3)}, {has(0, 20*time.Second), again(3)}, {has(900, 30*time.Second)}}, "1"},
		"nor beside another":                     {[3]edits{{has(0, time.Minute), leavesLayer}, {has(0, time.Minute)}, {has(900, time.Hour)}}, "1"},
		"those that it stands in for come first": {[3]edits{{has(101, time.Minute), again(3)}, {has(0, time.Second), again(1)}, {has(900, time.Hour)}}, ""},
		"and needed while one is down":           {[3]edits{{has(101, time.Minute), again(3)}, {crash(1)}, {has(900, time.Hour)}}, "1"},
		"but not for one that comes no more":     {[3]edits{{has(0, time.Minute), again(3)}, {crash(5)}, {has(900, time.Hour)}}, "3"},
		"never the only one that serves":         {[3]edits{{crash(5)}, {crash(5)}, {has(900, time.Hour)}}, ""},
		"one on its way back holds others up":    {[3]edits{{has(101, time.Minute)}, {has(0, time.Minute)}, {leavesLayer}}, "3"},
		"a stand-in is awaited":                  {[3]edits{{has(101, time.Minute)}, {has(0, time.Minute)}, {starting}}, ""},
		"unless the disk has no space for it":    {[3]edits{{has(101, time.Minute)}, {has(0, time.Minute)}, {noSpace(false)}}, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			var rs []plan.Replica
			for i, e := range tc.replicas {
				r := replica("new", i+1, s)
				r.ID, r.Generation = spec.ReplicaID("p", "web", of.Generation("web"), i+1), of.Generation("web")
				r.Record.Restart.Mode = spec.RestartAlways
				for _, edit := range e {
					edit(&r)
				}
				r.Record.ReplicaKey = r.ReplicaKey
				rs = append(rs, r)
			}
			slices.SortFunc(rs, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
			d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 1, Good: 1}, Release: of, Good: &of}}}
			var got []string
			for _, a := range plan.Make(d, plan.Observed{Now: noon, Replicas: rs, RulesEqual: true}).Actions {
				if stop, ok := a.(plan.Stop); ok && stop.Outgrown > 0 {
					got = append(got, fmt.Sprint(stop.Key.Number))
				}
			}
			if text := strings.Join(got, " "); text != tc.want {
				t.Errorf("%q get an empty layer, want %q", text, tc.want)
			}
		})
	}
}

// leavesLayer is one that has been told to stop for its layer, before its process
// has heard of it.
func leavesLayer(r *plan.Replica) { r.Record.Outgrown = 900 }
