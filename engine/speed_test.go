package engine

import (
	"sort"
	"sync"
	"testing"
	"time"
)

// TestSpeed holds the costs that a redeploy is made of, with room for a busy
// machine: the targets are 120 ms for create and start, 10 ms for a look at 50.
func TestSpeed(t *testing.T) {
	b := newBench(t)
	image := b.app()
	var took []time.Duration
	for n := range 10 {
		r := request(image, n+1, "sleep", "1h")
		start := time.Now()
		b.run(r)
		took = append(took, time.Since(start))
	}
	var wg sync.WaitGroup
	for n := range 40 {
		if n%4 == 0 {
			wg.Wait()
		}
		wg.Go(func() {
			r := request(image, n+11, "sleep", "1h")
			if err := b.Create(b.ctx, r); err != nil {
				t.Error(err)
				return
			}
			if err := b.Start(b.ctx, r.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var looks []time.Duration
	for range 20 {
		start := time.Now()
		if list, err := b.Instances(b.ctx); err != nil || len(list) != 50 {
			t.Fatalf("%d instances, %v", len(list), err)
		}
		looks = append(looks, time.Since(start))
	}
	create, look := median(took), median(looks)
	t.Logf("create and start %s, a look at 50 instances %s (medians)", create, look)
	if create > time.Second || look > 200*time.Millisecond {
		t.Errorf("create and start %s, a look at 50 instances %s", create, look)
	}
}

func median(d []time.Duration) time.Duration {
	sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
	return d[len(d)/2]
}
