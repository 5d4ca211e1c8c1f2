package rules_test

import (
	"testing"

	"dunnage/netns/rules"
	"dunnage/spec"
)

func TestCount(t *testing.T) {
	doc := func(text string) rules.Document { return rules.Parse(text) }
	const before = `*filter
:DUNNAGE-FORWARD - [0:0]
-A DUNNAGE-FORWARD -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:DUNNAGE-A - [0:0]
:DUNNAGE-B - [0:0]
-A PREROUTING -m comment --comment "dunnage: published" -j DUNNAGE-A
-A DUNNAGE-A -s 10.0.0.1/32 -j RETURN
-A DUNNAGE-A -j DUNNAGE-B
-A DUNNAGE-B -j RETURN
-A DUNNAGE-B -j RETURN
COMMIT
`
	for name, tc := range map[string]struct {
		after string
		want  spec.Written
	}{
		"nothing":   {before, spec.Written{}},
		"all of it": {"", spec.Written{Commits: 1, Rules: spec.RuleChange{Removed: 6}}},
		"one rule for another, one of two alike, and a chain": {`*filter
:DUNNAGE-FORWARD - [0:0]
-A DUNNAGE-FORWARD -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:DUNNAGE-A - [0:0]
:DUNNAGE-B - [0:0]
:DUNNAGE-C - [0:0]
-A PREROUTING -m comment --comment "dunnage: published" -j DUNNAGE-A
-A DUNNAGE-A -s 10.0.0.2/32 -j RETURN
-A DUNNAGE-A -j DUNNAGE-B
-A DUNNAGE-B -j RETURN
-A DUNNAGE-C -j ACCEPT
-A DUNNAGE-C -j ACCEPT
COMMIT
`, spec.Written{Commits: 1, Rules: spec.RuleChange{Added: 3, Removed: 2}}},
		"a rule that moves": {`*filter
:DUNNAGE-FORWARD - [0:0]
-A DUNNAGE-FORWARD -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:DUNNAGE-A - [0:0]
:DUNNAGE-B - [0:0]
-A PREROUTING -m comment --comment "dunnage: published" -j DUNNAGE-A
-A DUNNAGE-A -j DUNNAGE-B
-A DUNNAGE-A -s 10.0.0.1/32 -j RETURN
-A DUNNAGE-B -j RETURN
-A DUNNAGE-B -j RETURN
COMMIT
`, spec.Written{Commits: 1}},
		"only the filter table": {`*nat
:PREROUTING ACCEPT [0:0]
:DUNNAGE-A - [0:0]
:DUNNAGE-B - [0:0]
-A PREROUTING -m comment --comment "dunnage: published" -j DUNNAGE-A
-A DUNNAGE-A -s 10.0.0.1/32 -j RETURN
-A DUNNAGE-A -j DUNNAGE-B
-A DUNNAGE-B -j RETURN
-A DUNNAGE-B -j RETURN
COMMIT
`, spec.Written{Rules: spec.RuleChange{Removed: 1}}},
	} {
		if got := rules.Count(doc(tc.after), doc(before)); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}
