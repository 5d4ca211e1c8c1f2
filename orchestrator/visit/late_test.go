package visit

import (
	"errors"
	"testing"
	"time"

	"dunnage/internal/keyed"
	"dunnage/spec"
)

// A visit that fails counts when it began, however long it took, and not before
// anybody was served.
func TestLateFailures(t *testing.T) {
	begin := time.Unix(1000, 0)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	late := errors.New("no answer within 1s")
	var h history
	h.miss(at(-1000), at(-1000), at(0), late) // nobody has been served yet
	h.add(at(100), at(100))
	h.miss(at(50), at(50), at(1050), late) // nor had anybody when this one began
	h.add(at(5000), at(5000))
	h.miss(at(5900), at(5900), at(6900), late)
	h.turn(at(6000), true)
	h.add(at(6100), at(6100))
	h.miss(at(5950), at(5950), at(6950), late)
	h.miss(at(6050), at(6050), at(7050), late)
	h.miss(at(9000), at(9000), at(10000), late)
	h.add(at(10100), at(10100))
	for since, want := range map[int][2]int{-2000: {8, 4}, 4000: {7, 4}, 6000: {4, 2}, 8000: {2, 1}} {
		if got := h.tally(spec.VisitTarget{}, at(since)); got.Sent != want[0] || got.Failed != want[1] {
			t.Errorf("since %d: %+v, want %v", since, got, want)
		}
	}
}

// What is counted of a service outlives its targets for a while, and nothing is
// counted before anybody was served.
func TestCounts(t *testing.T) {
	now := time.Unix(1000, 0)
	web := spec.VisitTarget{Project: "shop", Service: "web"}
	v := &Visitor{targets: map[string]*target{}, wake: make(chan struct{}, 1)}
	at := &target{record: record{Reach: spec.Reach{VisitTarget: web}}}
	fail := errors.New("connection refused")
	for _, err := range []error{fail, nil, fail, nil, spec.ErrUnavailable} {
		v.note(at, time.Now(), time.Now(), false, err)
	}
	got := v.Counts()
	if len(got) != 1 || got[0].Answered.Count != 2 || got[0].Failed != 1 {
		t.Fatalf("%+v", got)
	}
	v.counts.forget(nil, now)
	v.counts.forget(nil, now.Add(keyed.LastsFor))
	if len(v.Counts()) != 1 {
		t.Error("forgotten too soon")
	}
	v.counts.forget([]spec.VisitTarget{web}, now.Add(2*keyed.LastsFor))
	v.counts.forget(nil, now.Add(3*keyed.LastsFor))
	if len(v.Counts()) != 1 {
		t.Error("forgotten though it was visited again")
	}
	v.counts.forget(nil, now.Add(5*keyed.LastsFor))
	if len(v.Counts()) != 0 {
		t.Error("kept for ever")
	}
}
