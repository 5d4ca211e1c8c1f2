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

// A status counts the replicas on trial for as long as the trial lasts.
func TestStatusOfATrial(t *testing.T) {
	byHand := rollout{service: spec.Service{Canary: &spec.Canary{Replicas: 1}}}
	promoted := byHand
	promoted.promoted = true
	for name, tc := range map[string]struct {
		rollout rollout
		edit    func(*plan.Replica)
		want    int
	}{
		"not ready yet": {byHand, starting, 0},
		"on trial":      {byHand, routed(time.Second), 1},
		"promoted":      {promoted, routed(time.Second), 0},
		"no canary":     {rollout{}, routed(time.Second), 0},
	} {
		_, _, _, p := tc.rollout.decide(append(olds(1, 2, 3), replica("new", 1, rollout{}.scene(), tc.edit))...)
		if got := p.Status[0].Services[0].Trial; got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

// A status says what clients had before the rollout, and whether that has failed.
func TestStatusOfARollout(t *testing.T) {
	s := rollout{}.scene()
	good, next := release(5, "old", s), release(6, "new", s)
	rec := spec.ProjectRecord{Name: "p", Desired: 6, Good: 5}
	failed, held, over := rec, rec, rec
	failed.Failed, failed.Causes = []int{6}, map[int]string{6: "no"}
	held.Held, over.Good = []string{"web"}, 6
	job := next
	job.Project.Services = slices.Clone(next.Project.Services)
	job.Project.Services[0].Restart.Mode, job.Project.Services[0].Ports = spec.RestartNo, nil
	for name, tc := range map[string]struct {
		rec     spec.ProjectRecord
		release spec.Release
		before  int
		failed  string
	}{
		"rolling": {rec, next, 3, ""}, "failed": {failed, next, 3, "no"}, "stopped before": {held, next, 0, ""},
		"converged": {over, next, 0, ""}, "a job": {rec, job, 0, ""},
	} {
		p := plan.Make(plan.Desired{Projects: []plan.Project{{Record: tc.rec, Release: tc.release, Good: &good}}}, plan.Observed{Now: noon})
		if got := p.Status[0]; got.Failed != tc.failed || got.Services[0].Before != tc.before {
			t.Errorf("%s: failed %q, %d before", name, got.Failed, got.Services[0].Before)
		}
	}
}

// A status says which part of the connections each replica is sent.
func TestStatusOfShares(t *testing.T) {
	byHand := rollout{service: spec.Service{Canary: &spec.Canary{Replicas: 1, Weight: 10}}}
	paused := byHand
	paused.paused = "on request"
	for name, tc := range map[string]struct {
		rollout rollout
		edit    func(*plan.Replica)
		want    string
	}{
		"not named yet":   {byHand, starting, "0.00 0.33 0.33 0.33"},
		"on trial":        {byHand, routed(time.Second), "0.10 0.30 0.30 0.30"},
		"a paused trial":  {paused, routed(time.Second), "0.10 0.30 0.30 0.30"},
		"the first batch": {rollout{service: spec.Service{Update: spec.UpdatePolicy{Parallelism: 1, Delay: spec.Duration(time.Hour)}}}, routed(time.Second), "0.33 0.00 0.33 0.33"},
	} {
		_, _, _, p := tc.rollout.decide(append(olds(1, 2, 3), replica("new", 1, rollout{}.scene(), tc.edit))...)
		var got []string
		for _, r := range p.Status[0].Services[0].Replicas {
			got = append(got, fmt.Sprintf("%.2f", r.Share))
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// A crash loop is one between two exits as well.
func TestStatusOfACrashLoop(t *testing.T) {
	again := func(failures int) func(*plan.Replica) {
		return func(r *plan.Replica) {
			r.Health, r.Detail = spec.HealthStarting, "has run for less than 2s"
			r.Record.Failures, r.Record.Exit = failures, &spec.Exit{At: noon.Add(-time.Second), Code: 5}
		}
	}
	for name, tc := range map[string]struct {
		edits []func(*plan.Replica)
		want  string
	}{
		"a loop":      {[]func(*plan.Replica){again(5)}, "has run for less than 2s; before: exited with code 5, 5 times in a row"},
		"once":        {[]func(*plan.Replica){again(1)}, "has run for less than 2s; before: exited with code 5"},
		"pardoned":    {[]func(*plan.Replica){again(0)}, "has run for less than 2s"},
		"no detail":   {[]func(*plan.Replica){again(2), func(r *plan.Replica) { r.Detail = "" }}, "before: exited with code 5, 2 times in a row"},
		"its host":    {[]func(*plan.Replica){again(1), func(r *plan.Replica) { r.Record.Exit.Lost = true }}, "has run for less than 2s"},
		"well again":  {[]func(*plan.Replica){again(5), func(r *plan.Replica) { r.Health = spec.HealthHealthy }}, ""},
		"between two": {[]func(*plan.Replica){exited(5, time.Second), recorded(5)}, "exited with code 5, 5 times in a row"},
	} {
		_, _, _, p := rollout{}.decide(append(olds(1, 2, 3), replica("new", 1, rollout{}.scene(), tc.edits...))...)
		if got := p.Status[0].Services[0].Replicas[0].Detail; got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// Until a release has converged, replicas of the one before show that one.
func TestStatusShowsTheReleaseThatConverged(t *testing.T) {
	of := func(release int) func(*plan.Replica) { return func(r *plan.Replica) { r.Record.Release = release } }
	s := rollout{}.scene()
	for name, tc := range map[string]struct {
		replica plan.Replica
		want    int
	}{
		"made for the one that converged":         {replica("old", 1, s, named, of(1)), 5},
		"made later, of the same content":         {replica("old", 1, s, named, of(4)), 5},
		"made for the new one":                    {replica("new", 1, s, of(6)), 6},
		"left behind by one that never converged": {replica("other", 1, s, of(3)), 3},
	} {
		good, next := release(5, "old", s), release(6, "new", s)
		project := plan.Project{Record: spec.ProjectRecord{Name: "p", Desired: 6, Good: 5}, Release: next, Good: &good}
		p := plan.Make(plan.Desired{Projects: []plan.Project{project}}, plan.Observed{Now: noon, Replicas: []plan.Replica{tc.replica}})
		if got := p.Status[0].Services[0].Replicas[0].Release; got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
	// What the new release leaves as it is.
	good, next := release(5, "old", s), release(6, "old", s)
	project := plan.Project{Record: spec.ProjectRecord{Name: "p", Desired: 6, Good: 5}, Release: next, Good: &good}
	for _, converged := range []bool{false, true} {
		want := 5
		if converged {
			project.Record.Good, project.Good, want = 6, &next, 6
		}
		p := plan.Make(plan.Desired{Projects: []plan.Project{project}}, plan.Observed{Now: noon, Replicas: []plan.Replica{replica("old", 1, s, named, of(1))}})
		if got := p.Status[0].Services[0].Replicas[0].Release; got != want {
			t.Errorf("unchanged, converged %v: %d, want %d", converged, got, want)
		}
	}
}

func TestExitText(t *testing.T) {
	for _, c := range []struct {
		want string
		r    spec.ReplicaRecord
	}{
		{"exited", spec.ReplicaRecord{}},
		{"exited with code 0", spec.ReplicaRecord{Exit: &spec.Exit{}}},
		{"exited with code 3, 2 times in a row", spec.ReplicaRecord{Exit: &spec.Exit{Code: 3}, Failures: 2}},
		{"exited with code 137 (SIGKILL)", spec.ReplicaRecord{Exit: &spec.Exit{Code: 137}}},
		{"exited with code 137 (out of memory)", spec.ReplicaRecord{Exit: &spec.Exit{Code: 137, OOM: true}}},
		{"exited with code 139 (SIGSEGV), 4 times in a row", spec.ReplicaRecord{Exit: &spec.Exit{Code: 139}, Failures: 4}},
		{"was stopped with 2.0 GiB in its writable layer", spec.ReplicaRecord{Exit: &spec.Exit{Code: 143, Disk: 2 << 30}}},
		{"exited with code 255", spec.ReplicaRecord{Exit: &spec.Exit{Code: 255}}},
	} {
		if got := plan.ExitText(c.r); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
