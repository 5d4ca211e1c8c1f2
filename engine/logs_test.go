package engine

import (
	"strings"
	"testing"
)

// The last lines of a replica are to be had after it is removed, and a long one
// is cut.
func TestTail(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "no-such-verb")
	all := b.output(r)
	lines, err := b.Tail(b.ctx, r.ReplicaKey, 1)
	if want := strings.Split(strings.TrimSuffix(all, "\n"), "\n"); err != nil || len(lines) != 1 || lines[0] != want[len(want)-1] {
		t.Errorf("%q, %v, want the last of %q", lines, err, want)
	}
	none := r.ReplicaKey
	none.ID += "0"
	if lines, err := b.Tail(b.ctx, none, 1); err != nil || len(lines) > 0 {
		t.Errorf("of one that never was: %q, %v", lines, err)
	}
}
