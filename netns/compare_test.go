package netns

import (
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// Compare says, rule by rule, what an Apply then writes.
func TestCompare(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		one := network(1, false)
		a, b := w.attach("a", member(one, 10)), w.attach("b", member(one, 11))
		routing := func(of ...spec.Backend) spec.Routing {
			return spec.Routing{
				Networks:  []spec.NetworkAddressing{one},
				Services:  []spec.ServiceRoute{{Project: "web", Service: "app", Network: one.ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Backends: of}},
				Published: published(8080, 80, of...),
			}
		}
		w.apply(routing())
		from := routing()
		for _, to := range []spec.Routing{routing(a.backend(0)), routing(a.backend(0), b.backend(0)), routing(b.backend(0)), {}} {
			before := w.net.Written().Rules
			said, err := w.net.Compare(from, to)
			if err != nil {
				t.Fatal(err)
			}
			w.apply(to)
			after := w.net.Written().Rules
			if did := (spec.RuleChange{Added: after.Added - before.Added, Removed: after.Removed - before.Removed}); did != said.RuleChange {
				t.Errorf("said %+v, did %+v", said.RuleChange, did)
			}
			added, removed := 0, 0
			for _, l := range said.Lines {
				switch {
				case strings.HasPrefix(l, "+ -t "):
					added++
				case strings.HasPrefix(l, "- -t "):
					removed++
				default:
					t.Errorf("line %q", l)
				}
			}
			if added != said.Added || removed != said.Removed {
				t.Errorf("%d and %d lines for %+v", added, removed, said.RuleChange)
			}
			from = to
		}
	})
}
