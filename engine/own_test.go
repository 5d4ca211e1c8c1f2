package engine

import (
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " 1 17 17 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1234 56 78 18446744073709551615"
	for line, want := range map[string]process{
		"18 (dunnage-log) S" + rest:     {pid: 18, parent: 1, name: "dunnage-log", cpu: 3 * time.Second},
		"18 (a) Z 99 (b) c) R" + rest:   {pid: 18, parent: 1, name: "a) Z 99 (b) c", cpu: 3 * time.Second},
		"18 (containerd-shim) S" + rest: {pid: 18, parent: 1, name: "containerd-shim", cpu: 3 * time.Second},
	} {
		if got, ok := parseStat(18, []byte(line)); !ok || got != want {
			t.Errorf("%s: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "18 (gone", "18 (short) S 1 2"} {
		if got, ok := parseStat(18, []byte(line)); ok {
			t.Errorf("%q is read as %+v", line, got)
		}
	}
}

// TestStrangers: who is none of ours is looked at again after a while, since the
// kernel gives numbers to others.
func TestStrangers(t *testing.T) {
	var s strangers
	if s.has(1) {
		t.Error("a stranger from the beginning")
	}
	s.add(1)
	if !s.has(1) || s.has(2) {
		t.Error("1 is a stranger, 2 isn't")
	}
	s.since = s.since.Add(-2 * strangersFor)
	if s.has(1) {
		t.Error("a stranger for ever")
	}
}
