package keyed

import (
	"slices"
	"testing"
	"time"
)

// What is unused stays for a while, and as long again after it was used once more.
func TestLasting(t *testing.T) {
	var l Lasting[string, int]
	first := func() int { return 10 }
	*l.Of("a", first)++
	*l.Of("a", first)++
	*l.Of("b", first)++
	begin := time.Now()
	at := func(lasts float64, used string) {
		l.Forget(func(key string) bool { return key == used }, begin.Add(time.Duration(lasts*float64(LastsFor))))
	}
	at(0, "b")
	at(1, "")
	if got := slices.Sorted(l.All()); !slices.Equal(got, []int{11, 12}) {
		t.Fatalf("after %s: %v", LastsFor, got)
	}
	at(1.5, "b")
	if got := slices.Collect(l.All()); l.Len() != 1 || !slices.Equal(got, []int{11}) {
		t.Fatalf("a was left for longer, and b is used: %v", got)
	}
	at(2, "")
	at(3.5, "")
	if l.Len() != 0 {
		t.Error("b is still there")
	}
}
