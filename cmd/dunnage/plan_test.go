package main

import (
	"bytes"
	"strings"
	"testing"

	"dunnage/spec"
)

// What a deploy costs is told beside what it changes.
func TestPlanOfWhatClientsNotice(t *testing.T) {
	v := spec.Preview{Project: "shop", From: 2, Draining: 1, Services: []spec.ServicePreview{{
		Name: "db", Change: spec.ChangeReplace, Order: spec.StopFirst, From: 1, To: 1,
		Gap: "stop-first: db is down for about 3s (its last start took 2.8s); connections wait for up to 10s", Warm: "1 of the old version",
	}}, Pull: []spec.ImagePull{{Ref: "db:2", Size: 12 << 20, Known: true}, {Ref: "far:1"}}, Secrets: []string{"key 1 -> 2"},
		Rules: spec.RuleDiff{RuleChange: spec.RuleChange{Added: 2, Removed: 1}, Lines: []string{"- -t nat -A A -j B", "+ -t nat -A A -j C"}}}
	for rules, want := range map[bool]string{false: "", true: "- -t nat -A A -j B\n+ -t nat -A A -j C\n"} {
		var out bytes.Buffer
		p := program{stdout: &out}
		if err := p.printPreview(v, rules); err != nil {
			t.Fatal(err)
		}
		_, got, _ := strings.Cut(out.String(), "stop-first  -\n")
		if want := "gap: db: " + v.Services[0].Gap + "\nwarm: db: 1 of the old version\npull: db:2 (12.0 MiB)\npull: far:1 (size unknown)\nsecret: key 1 -> 2\n" +
			"rules: 2 added, 1 removed\n" + want + "drain: 1 connection open to replicas that go\n"; got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
}

// TestPlanOfNoChange: where no service differs, a deploy may make a release all
// the same, and what it does differ in is told.
func TestPlanOfNoChange(t *testing.T) {
	pull := []spec.ImagePull{{Ref: "web:1"}}
	rules := spec.RuleDiff{RuleChange: spec.RuleChange{Added: 2}}
	for want, v := range map[string]spec.Preview{
		"nothing to do\n": {},
		"note: again\n":   {To: 3, Notes: []string{"again"}},
		"pull: web:1 (size unknown)\nnothing to do, unless a pull brings another image\n":                                     {Pull: pull},
		"rules: 2 added, 0 removed\nnothing to do; the rules change by themselves when all replicas of release 2 are ready\n": {Rules: rules},
		"pull: web:1 (size unknown)\nrules: 2 added, 0 removed\nnote: paused\n":                                               {To: 3, Paused: "on request", Pull: pull, Rules: rules, Notes: []string{"paused"}},
	} {
		var out bytes.Buffer
		p := program{stdout: &out}
		v.Project, v.From, v.Services = "shop", 2, []spec.ServicePreview{{Name: "web", Change: spec.ChangeNone, From: 1, To: 1}}
		if err := p.printPreview(v, false); err != nil || !strings.HasSuffix(out.String(), "-\n"+want) {
			t.Errorf("%+v: %s, %v", v, out.String(), err)
		}
	}
}
