package storetest

import (
	"net/netip"
	"testing"
	"time"

	"dunnage/spec"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Receipt is a receipt that says a bit of everything.
func Receipt(project string, n int) spec.Receipt {
	at := time.Unix(int64(1000*n), 0).UTC()
	return spec.Receipt{
		Project: project, Number: n, Release: n, From: n - 1, Operation: "op", Kind: "deploy", Outcome: spec.OperationDone,
		Started: at, Ended: at.Add(time.Second), Settled: at.Add(time.Minute), Drained: 3, Cut: 1, Commits: 2,
		Visits: []spec.VisitTally{{
			VisitTarget: spec.VisitTarget{Project: project, Service: "web", Addr: netip.MustParseAddrPort("192.0.2.1:8080"), Port: 8080},
			Sent:        214, Failed: 3, Reasons: map[string]int{"connection refused": 3}, LongestGap: spec.Duration(9 * time.Millisecond),
		}},
		Rules: spec.RuleChange{Added: 4, Removed: 2}, Images: map[string]string{"web": "sha256:ab"}, Secrets: map[string]int{"shop/token": 17},
		Steps: []spec.ReceiptStep{{Name: spec.StepStart, Service: "web", At: at, Took: spec.Duration(time.Second), Times: 3}},
	}
}

// receipts stay, the newest of each project; those that haven't settled are
// loaded.
func receipts(t *testing.T, open func(t *testing.T) Store, reopen func(t *testing.T, s Store) Store) {
	s := open(t)
	unsettled := func(project string, n int) spec.Receipt {
		r := Receipt(project, n)
		r.Settled, r.Draining = time.Time{}, 2
		return r
	}
	const over = spec.KeptReceipts + 300 // keys that don't sort as text
	for n := 1; n <= over; n++ {
		commit(t, s, spec.Commit{Receipts: []spec.Receipt{unsettled("a", n)}})
		if n > 1 && n < over {
			commit(t, s, spec.Commit{Receipts: []spec.Receipt{Receipt("a", n)}}) // amended
		}
	}
	commit(t, s, spec.Commit{Receipts: []spec.Receipt{unsettled("a", 1)}}) // too old by now
	commit(t, s, spec.Commit{Receipts: []spec.Receipt{Receipt("a-b", 1), unsettled("a-b", 2)}})
	s = reopen(t, s)
	check(t, s, spec.State{Receipts: []spec.Receipt{unsettled("a", over), unsettled("a-b", 2)}})
	var want []spec.Receipt
	for n := over - spec.KeptReceipts + 1; n < over; n++ {
		want = append(want, Receipt("a", n))
	}
	checkReceipts(t, s, "a", append(want, unsettled("a", over)))
	checkReceipts(t, s, "a-b", []spec.Receipt{Receipt("a-b", 1), unsettled("a-b", 2)})
	checkReceipts(t, s, "b", nil)
}

func checkReceipts(t *testing.T, s Store, project string, want []spec.Receipt) {
	t.Helper()
	got, err := s.Receipts(project)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
		t.Fatalf("receipts of %s (-want +got):\n%s", project, d)
	}
}
