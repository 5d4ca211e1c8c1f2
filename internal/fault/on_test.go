//go:build faults

package fault

import "testing"

func TestDue(t *testing.T) {
	for _, tc := range []struct {
		order string
		want  int // which of the passes below is the one; -1 = none
	}{
		{"a before", 0}, {"a before#2", 2}, {"b after", 3}, {"#2", 1}, {"#4", 3}, {"a before#3", -1}, {"c after", -1}, {"", 0},
	} {
		passing.count = 0
		got := -1
		for i, here := range []string{"a before", "a after", "a before", "b after"} {
			if due(tc.order, here) && got < 0 {
				got = i
			}
		}
		if got != tc.want {
			t.Errorf("%q: at %d, want %d", tc.order, got, tc.want)
		}
	}
}
