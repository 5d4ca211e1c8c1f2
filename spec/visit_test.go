package spec

import (
	"maps"
	"testing"
)

func TestTalliesOfTwoTimes(t *testing.T) {
	earlier := VisitTally{Sent: 3, Failed: 1, Reasons: map[string]int{"refused": 1}, LongestGap: 9, State: ReachUnreachable}
	later := VisitTally{Sent: 4, Failed: 2, Reasons: map[string]int{"refused": 1, "reset": 1}, LongestGap: 5, State: ReachReachable}
	both := earlier.Plus(later)
	if both.Sent != 7 || both.Failed != 3 || !maps.Equal(both.Reasons, map[string]int{"refused": 2, "reset": 1}) || both.LongestGap != 9 || both.State != ReachReachable {
		t.Errorf("both: %+v", both)
	}
	if earlier.Reasons["refused"] != 1 || later.Reasons["refused"] != 1 {
		t.Errorf("the tallies themselves are now %+v and %+v", earlier, later)
	}
	never := VisitTally{Unreached: 2}
	if got := never.Plus(VisitTally{Unreached: 3}).Unreached; got != 5 {
		t.Errorf("never reached: %d visits", got)
	}
	if got := never.Plus(later).Unreached; got != 0 {
		t.Errorf("reached by now, and yet %d visits count as before the first that was", got)
	}
}
