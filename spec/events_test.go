package spec_test

import (
	"testing"
	"time"

	"dunnage/spec"
)

func TestEventRequestWants(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	replica := spec.Event{Seq: 5, At: at, Kind: spec.EventReady, Project: "shop", Service: "web", Replica: "shop-web-0123abcd-1"}
	host := spec.Event{Seq: 6, At: at, Kind: spec.EventProblem}
	for name, tc := range map[string]struct {
		r    spec.EventRequest
		e    spec.Event
		want bool
	}{
		"anything":                 {spec.EventRequest{}, replica, true},
		"later numbers":            {spec.EventRequest{After: 5}, replica, false},
		"from its time on":         {spec.EventRequest{Since: at}, replica, true},
		"later ones":               {spec.EventRequest{Since: at.Add(1)}, replica, false},
		"earlier ones":             {spec.EventRequest{Until: at}, replica, false},
		"earlier and its time":     {spec.EventRequest{Until: at.Add(1)}, replica, true},
		"its kind":                 {spec.EventRequest{Kinds: []spec.EventKind{spec.EventExited, spec.EventReady}}, replica, true},
		"other kinds":              {spec.EventRequest{Kinds: []spec.EventKind{spec.EventExited}}, replica, false},
		"its project":              {spec.EventRequest{Project: "shop"}, replica, true},
		"another project":          {spec.EventRequest{Project: "blog"}, replica, false},
		"a project, of the host":   {spec.EventRequest{Project: "shop"}, host, false},
		"its service":              {spec.EventRequest{Names: []string{"db", "web"}}, replica, true},
		"its full name":            {spec.EventRequest{Names: []string{"shop-web-0123abcd-1"}}, replica, true},
		"its short name":           {spec.EventRequest{Names: []string{"web-1"}}, replica, true},
		"its name as docker's":     {spec.EventRequest{Names: []string{"shop-web-1"}}, replica, true},
		"its neighbour":            {spec.EventRequest{Names: []string{"web-2"}}, replica, false},
		"a name, of the host":      {spec.EventRequest{Names: []string{"web"}}, host, false},
		"an empty name, likewise":  {spec.EventRequest{Names: []string{""}}, host, false},
		"its service, another one": {spec.EventRequest{Names: []string{"we"}}, replica, false},
	} {
		if got := tc.r.Wants(tc.e); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
