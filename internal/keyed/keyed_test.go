package keyed

import (
	"sync"
	"testing"
)

func TestMutex(t *testing.T) {
	var k Mutex
	counts := [2]int{}
	var wg sync.WaitGroup
	for i := range 200 {
		key := i % 2
		wg.Go(func() {
			defer k.Lock(string(rune('a' + key)))()
			counts[key]++ // the race detector watches
		})
	}
	wg.Wait()
	if counts != [2]int{100, 100} {
		t.Errorf("counted %v", counts)
	}
	unlock := k.Lock("a")
	k.Lock("b")() // another key's: doesn't wait
	unlock()
	if len(k.held) != 0 {
		t.Errorf("%d locks are kept that nobody holds", len(k.held))
	}
}
