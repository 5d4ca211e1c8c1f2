package plan_test

import (
	"slices"
	"strings"
	"testing"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// Who waits for a replica that its restart policy leaves dead is told so; who waits
// for one that may come, or waits no more, isn't.
func TestLeftDead(t *testing.T) {
	no := spec.RestartPolicy{Mode: spec.RestartNo}
	dead := func(r *plan.Replica) { r.Record.Restart = no; exited(1, 0)(r); recorded(1)(r) }
	for name, tc := range map[string]struct {
		condition spec.Condition
		db        func(*plan.Replica)
		edit      func(db, web *spec.Service)
		web       func(*plan.Replica) // nil = not made yet
		dead      bool                // db
		waits     bool                // web, in vain
	}{
		"left dead":         {spec.DependHealthy, dead, nil, nil, true, true},
		"a job that failed": {spec.DependCompleted, dead, nil, nil, true, true},
		"tried too often": {spec.DependHealthy, func(r *plan.Replica) {
			dead(r)
			r.Record.Restart = spec.RestartPolicy{Mode: spec.RestartAlways, Max: 1}
			r.Record.Failures = 2
		}, nil, nil, true, true},
		"may be tried again":  {spec.DependHealthy, func(r *plan.Replica) { dead(r); r.Record.Restart.Mode = spec.RestartAlways }, nil, nil, false, false},
		"is starting":         {spec.DependHealthy, starting, nil, nil, false, false},
		"a job that is done":  {spec.DependCompleted, func(r *plan.Replica) { r.Record.Restart = no; exited(0, 0)(r); recorded(0)(r) }, nil, nil, false, false},
		"stopped on request":  {spec.DependHealthy, func(r *plan.Replica) { dead(r); r.Record.Requested = true }, nil, nil, false, false},
		"created and waiting": {spec.DependHealthy, dead, nil, created, true, true},
		"runs already":        {spec.DependHealthy, dead, nil, func(*plan.Replica) {}, true, false},
		"crashes by itself":   {spec.DependHealthy, dead, nil, func(r *plan.Replica) { exited(1, 0)(r); recorded(1)(r) }, true, false},
		"after a boot":        {spec.DependHealthy, dead, nil, func(r *plan.Replica) { exited(1, 0)(r); recorded(1)(r); r.Phase = spec.PhaseCreated }, true, true},
		"tolerated":           {spec.DependHealthy, dead, func(db, _ *spec.Service) { db.Replicas, db.Update.MaxFailureRatio = 2, 0.5 }, nil, false, true},
		"not asked for":       {spec.DependHealthy, dead, func(_, web *spec.Service) { web.DependsOn = nil }, nil, true, false},
		"in its network": {spec.DependStarted, dead, func(db, web *spec.Service) {
			db.Update.Order = spec.StartFirst
			web.Container.Networks, web.Container.Network, web.Container.Joins = nil, spec.NetworkService, "db"
		}, nil, true, true},
		"over another": {spec.DependHealthy, dead, nil, nil, true, true},
	} {
		s := scene{order: spec.StartFirst, wanted: 1, depends: true}
		r := release(1, "new", s)
		web, db := &r.Project.Services[0], &r.Project.Services[1]
		web.DependsOn[0].Condition = tc.condition
		if name == "over another" {
			r.Project.Services = append(r.Project.Services, spec.Service{Name: "pool", Replicas: 1, DependsOn: slices.Clone(web.DependsOn)})
			web, db = &r.Project.Services[0], &r.Project.Services[1]
			web.DependsOn[0].Service = "pool"
		}
		if tc.edit != nil {
			tc.edit(db, web)
		}
		at := func(service string, edit func(*plan.Replica)) plan.Replica {
			out := replica("new", 1, s)
			gen := r.Generation(service)
			out.ReplicaKey = spec.ReplicaKey{ID: spec.ReplicaID("p", service, gen, 1), Project: "p", Service: service, Generation: gen, Number: 1}
			out.Record.ReplicaKey = out.ReplicaKey
			edit(&out)
			return out
		}
		replicas := []plan.Replica{at("db", tc.db)}
		if tc.web != nil {
			replicas = append(replicas, at("web", tc.web))
		}
		d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 1, Good: 1}, Release: r, Good: &r}}}
		got := map[string]spec.ServiceStatus{}
		for _, service := range plan.Make(d, plan.Observed{Now: noon, Replicas: replicas}).Status[0].Services {
			got[service.Name] = service
		}
		says := func(service string, dead bool) {
			t.Helper()
			st := got[service]
			text := strings.HasSuffix(st.Waiting, " exited with code 1, and its restart policy doesn't start it again; `dunnage start -p p db` starts it once more") ||
				strings.HasSuffix(st.Waiting, " exited with code 1, 2 times in a row, and its restart policy doesn't start it again; `dunnage start -p p db` starts it once more")
			if (st.LeftDead == "db") != dead || text != dead {
				t.Errorf("%s: %s: %q, %q", name, service, st.LeftDead, st.Waiting)
			}
		}
		says("db", tc.dead)
		says("web", tc.waits)
		because := ", which won't come by itself: p-db-"
		if web.Container.Joins != "" {
			because = "p-db-"
		}
		if tc.waits && !strings.Contains(got["web"].Waiting, because) {
			t.Errorf("%s: %q", name, got["web"].Waiting)
		}
	}
}

// Who waits for a job that is started again each time it ends well is told why that
// takes for ever.
func TestJobThatNeverEnds(t *testing.T) {
	for mode, want := range map[spec.RestartMode]string{
		spec.RestartAlways:        "waits for db to be completed, which restart: always never lets it be",
		spec.RestartUnlessStopped: "waits for db to be completed, which restart: unless-stopped never lets it be",
		spec.RestartOnFailure:     "waits for db to be completed",
	} {
		s := scene{order: spec.StartFirst, wanted: 1, depends: true}
		r := release(1, "new", s)
		r.Project.Services[0].DependsOn[0].Condition = spec.DependCompleted
		r.Project.Services[1].Restart.Mode = mode
		d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 1}, Release: r}}}
		for _, service := range plan.Make(d, plan.Observed{Now: noon}).Status[0].Services {
			if service.Name == "web" && service.Waiting != want {
				t.Errorf("%s: %q, want %q", mode, service.Waiting, want)
			}
		}
	}
}
