package main

import (
	"testing"

	"dunnage/spec"
)

func TestFilters(t *testing.T) {
	status := func() *spec.Status {
		return &spec.Status{Projects: []spec.ProjectStatus{{Name: "shop", Services: []spec.ServiceStatus{
			{Name: "web", Replicas: []spec.ReplicaStatus{
				{Project: "shop", Service: "web", Replica: "web-1", State: spec.StateReady, Labels: map[string]string{"tier": "front", "team": ""}},
				{Project: "shop", Service: "web", Replica: "web-2", State: spec.StateBackoff, Labels: map[string]string{"tier": "front"}},
			}},
			{Name: "db", Replicas: []spec.ReplicaStatus{{Project: "shop", Service: "db", Replica: "db-1", State: spec.StateReady}}},
		}}}}
	}
	for text, want := range map[string]int{
		"label=tier": 2, "label=tier=front": 2, "label=tier=back": 0, "label=team": 1, "label=team=": 1,
		"state=ready": 2, "service=db": 1, "project=shop": 3, "health=healthy": 0,
	} {
		f, err := parseFilters([]string{text})
		if err != nil {
			t.Fatal(err)
		}
		st := status()
		f.apply(st)
		if got := len(selectReplicas(*st, "", nil)); got != want {
			t.Errorf("%s: %d replicas, want %d", text, got, want)
		}
	}
	f, err := parseFilters([]string{"label=tier", "state=ready"})
	if err != nil {
		t.Fatal(err)
	}
	st := status()
	f.apply(st)
	if got := selectReplicas(*st, "", nil); len(got) != 1 || got[0].Replica != "web-1" || len(st.Projects[0].Services) != 1 {
		t.Errorf("both: %+v", got)
	}
	for _, bad := range []string{"label", "label=", "colour=red", "state=READY", "health=x", ""} {
		if _, err := parseFilters([]string{bad}); err == nil {
			t.Errorf("%q is a filter", bad)
		}
	}
}
