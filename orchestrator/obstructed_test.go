package orchestrator

import (
	"slices"
	"strings"
	"testing"

	"dunnage/spec"
)

// A rule of others that drops a published port is found at once, before the
// visitor has missed an answer; what dunnage itself refuses is none.
func TestObstructed(t *testing.T) {
	s := publishing(t)
	if found, left, err := s.loop.Obstructed(t.Context()); err != nil || len(found) != 0 || left != 0 {
		t.Errorf("%+v, %d left, %v", found, left, err)
	}
	s.w.Blocked = map[uint16]bool{8080: true}
	found, _, err := s.loop.Obstructed(t.Context())
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Verdict, "dropped by iptables-nft filter FORWARD, rule 1: -p tcp -j DROP") ||
		!slices.Contains(found[0].At, "shop/web at 192.0.2.1:8080") || len(found[0].Next) == 0 {
		t.Errorf("%+v, %v", found, err)
	}
	s.w.Blocked, s.w.Early = nil, map[uint16]bool{8080: true}
	found, _, err = s.loop.Obstructed(t.Context())
	if err != nil || len(found) != 1 || !found[0].Maybe || found[0].Verdict != "some connections may die: nft netdev early in: hook ingress on eth0" || len(found[0].Next) == 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

// A policy of IPsec is told of though it takes some clients only, unlike rules.
func TestObstructedByIPsec(t *testing.T) {
	for where, want := range map[string]bool{"ip xfrm policy": true, "iptables-nft filter FORWARD": false} {
		step := spec.TraceStep{Where: where, Owner: spec.OwnerOther, Maybe: true, Ends: true}
		if got := mayObstruct(spec.Trace{Fate: spec.FateMaybe, Steps: []spec.TraceStep{step}}); got != want {
			t.Errorf("%s: %v", where, got)
		}
	}
}

// A rule of others that came shortly before a release isn't taken for its fault: the
// end of the deploy and its receipt name the rule.
func TestObstructedReleaseNamesTheRule(t *testing.T) {
	s := publishing(t)
	s.w.Blocked = map[uint16]bool{8080: true}
	p := published("fast", 0)
	p.Services[0].Container.Environment = []string{"V=2"}
	op := ask(t, s, p)
	receipt, _ := newest(t, s)
	for what, cause := range map[string]string{"operation": op.Cause, "receipt": receipt.Cause} {
		if op.State != spec.OperationRolledBack || !strings.HasPrefix(cause, "web: port 8080: healthy inside, unreachable outside: no answer within 1s, for ") ||
			!strings.Contains(cause, "; whichever release serves, connections are dropped by iptables-nft filter FORWARD, rule 1: -p tcp -j DROP; ") {
			t.Errorf("%s: %s: %q", what, op.State, cause)
		}
	}
}

// Obstructions are what others do to all of a port's clients, or to those of one
// replica.
func TestObstructs(t *testing.T) {
	step := func(owner spec.RuleOwner) []spec.TraceStep { return []spec.TraceStep{{Owner: owner, Ends: true}} }
	diverted := []spec.TraceStep{{Where: "iptables-nft nat DOCKER", Owner: spec.OwnerDocker, What: "sent on to 172.17.0.2:80"}}
	for _, c := range []struct {
		name  string
		trace spec.Trace
		want  bool
	}{
		{"arrives", spec.Trace{Fate: spec.FateArrives}, false},
		{"arrives elsewhere", spec.Trace{Fate: spec.FateArrives, Steps: diverted}, true},
		{"isn't tracked", spec.Trace{Fate: spec.FateArrives, Steps: []spec.TraceStep{{Owner: spec.OwnerOther, What: "not tracked: no address is translated"}}}, true},
		{"dropped by others", spec.Trace{Fate: spec.FateDropped, Steps: step(spec.OwnerOther)}, true},
		{"dropped by the operator", spec.Trace{Fate: spec.FateDropped, Steps: step(spec.OwnerUser)}, true},
		{"refused by us", spec.Trace{Fate: spec.FateRefused, Steps: step(spec.OwnerDunnage)}, false},
		{"held by us", spec.Trace{Fate: spec.FateHeld, Steps: step(spec.OwnerDunnage)}, false},
		{"no route to one replica", spec.Trace{Fate: spec.FatePartly, Steps: step("")}, true},
		{"not an address of the host", spec.Trace{Fate: spec.FateArrives, Away: true}, true},
		{"a block list", spec.Trace{Fate: spec.FateMaybe, Steps: step(spec.OwnerOther)}, false},
	} {
		if got := obstructs(c.trace); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
