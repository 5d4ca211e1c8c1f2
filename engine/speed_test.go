package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"testing"
	"time"

	"dunnage/spec"
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
	var counts []time.Duration
	for range 20 {
		start := time.Now()
		for n := range 50 {
			if _, runs := b.Usage(request(image, n+1, "sleep", "1h").ID); !runs {
				t.Fatalf("replica %d isn't counted", n+1)
			}
		}
		counts = append(counts, time.Since(start))
	}
	t.Logf("to count what 50 use %s (median)", median(counts))
	create, look := median(took), median(looks)
	t.Logf("create and start %s, a look at 50 instances %s (medians)", create, look)
	if create > time.Second || look > 200*time.Millisecond {
		t.Errorf("create and start %s, a look at 50 instances %s", create, look)
	}
}

// TestSecretsSpeed holds what secrets add to a start, until the program is there,
// with room for a busy machine: the target is 5 ms for 20 of them.
func TestSecretsSpeed(t *testing.T) {
	b := newBench(t)
	image := b.app()
	ways := []struct {
		name    string
		deliver func(*delivery)
	}{
		{"none", func(*delivery) {}},
		{"20 below the directory", func(d *delivery) {
			for i := range 20 {
				d.Dir = filepath.Dir(d.put(fmt.Sprintf("files/%d", i), canary))
			}
		}},
		{"20 with places of their own", func(d *delivery) {
			d.Files = map[string]string{}
			for i := range 20 {
				d.Files[fmt.Sprintf("/etc/secret%d", i)] = d.put(strconv.Itoa(i), canary)
			}
		}},
		{"20 variables", func(d *delivery) {
			var kv []string
			for i := range 20 {
				kv = append(kv, fmt.Sprintf("SECRET%d=%s", i, canary))
			}
			d.variables(kv...)
		}},
	}
	const runs = 5
	best := make([]time.Duration, len(ways))
	for n := range runs * len(ways) {
		way := n % len(ways)
		d := newDelivery(t)
		ways[way].deliver(d)
		r := request(image, n+1, "sleep", "1h")
		r.Secrets = d.SecretPaths
		if took := b.startsIn(r); n < len(ways) || took < best[way] {
			best[way] = took
		}
	}
	for way, took := range best {
		t.Logf("%s: a start takes %s (best of %d)", ways[way].name, took, runs)
		if more := took - best[0]; more > 100*time.Millisecond {
			t.Errorf("%s: %s more than without", ways[way].name, more)
		}
	}
}

// startsIn is the time from the start to the program, which may come after
// dunnage-init.
func (b *bench) startsIn(r spec.CreateRequest) time.Duration {
	b.t.Helper()
	b.create(r)
	start := time.Now()
	if err := b.Start(b.ctx, r.ID); err != nil {
		b.t.Fatal(err)
	}
	record, _ := b.started.get(r.ID)
	for exe := ""; exe != "/testapp"; time.Sleep(100 * time.Microsecond) {
		var err error
		if exe, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", record.Pid)); err != nil {
			b.t.Fatal(err)
		}
	}
	took := time.Since(start)
	if err := b.Remove(b.ctx, r.ID); err != nil {
		b.t.Fatal(err)
	}
	return took
}

func median(d []time.Duration) time.Duration {
	sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
	return d[len(d)/2]
}
