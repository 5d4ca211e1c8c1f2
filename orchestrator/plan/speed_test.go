package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// BenchmarkMake is a plan at rest for 300 replicas in 50 projects, which is made
// at every look.
func BenchmarkMake(b *testing.B) {
	d, o := atRest(50, 6)
	first := Make(d, o)
	o.Applied = first.Routing
	for _, a := range first.Actions {
		for i := range o.Replicas {
			if w, ok := a.(WriteNames); ok && o.Replicas[i].ID == w.Key.ID {
				o.Replicas[i].Names = Fingerprint(w.Endpoint.Names)
			}
		}
	}
	if p := Make(d, o); len(p.Actions) > 0 {
		b.Fatalf("the world isn't at rest: %d actions, such as %#v", len(p.Actions), p.Actions[0])
	}
	for b.Loop() {
		Make(d, o)
	}
}

// atRest is projects of one service each, all of whose replicas are ready.
func atRest(projects, replicas int) (Desired, Observed) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	var d Desired
	o := Observed{Now: now, RulesEqual: true}
	for i := range projects {
		name := fmt.Sprintf("p%d", i)
		network := fmt.Sprintf("%s_default", name)
		addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 208, byte(i), byte(n)}) }
		release := spec.Release{
			Number: 1, Images: map[string]spec.PinnedImage{"web": {Ref: "example.org/web:1", Digest: "sha256:1"}},
			Project: spec.Project{Name: name, Services: []spec.Service{{
				Name: "web", Replicas: replicas, Ports: []spec.Port{{Published: uint16(10000 + i), Target: 80, Protocol: spec.TCP}},
				Container: spec.Container{Image: "example.org/web:1", Networks: []spec.Attachment{{Name: "default"}}},
			}}, Networks: []spec.Network{{Name: "default"}}},
		}
		d.Projects = append(d.Projects, Project{
			Record:  spec.ProjectRecord{Name: name, Desired: 1, Good: 1, Next: 2},
			Release: release, Good: &release,
		})
		for n := 1; n <= replicas; n++ {
			gen := release.Generation("web")
			key := spec.ReplicaKey{ID: spec.ReplicaID(name, "web", gen, n), Project: name, Service: "web", Generation: gen, Number: n}
			a := spec.EndpointAddress{Network: network, Addr: addr(n), Subnet: netip.PrefixFrom(addr(0), 24)}
			o.Replicas = append(o.Replicas, Replica{
				ReplicaKey: key, Exists: true, Recorded: true, Attached: true, Phase: spec.PhaseRunning, Pid: 1000 + n, StartedAt: now.Add(-time.Hour),
				Record: spec.ReplicaRecord{ReplicaKey: key, Running: true, Addresses: []spec.EndpointAddress{a}},
				Health: spec.HealthHealthy, Named: true, RoutedSince: now.Add(-time.Hour), Limits: release.Project.Services[0].Limits.Fingerprint(),
			})
		}
	}
	slices.SortFunc(o.Replicas, func(a, b Replica) int { return strings.Compare(a.ID, b.ID) })
	return d, o
}
