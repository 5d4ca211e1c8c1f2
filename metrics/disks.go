package metrics

import (
	"context"
	"slices"
	"sync"
	"time"

	"dunnage/spec"
)

const (
	// diskEvery is how old a count of what is on disk may be.
	diskEvery = time.Minute
	// diskPatience bounds a count: no answer waits for it.
	diskPatience = 2 * time.Minute
)

// disks keeps the last count of what is on disk. An answer takes that and, if
// it is old, has it counted anew for the next one.
type disks struct {
	mu     sync.Mutex
	report *spec.DiskReport
	asked  time.Time
	busy   bool
}

// last returns the last count, nil if there is none yet.
func (d *disks) last(now time.Time, count func(context.Context) (spec.DiskReport, error)) *spec.DiskReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.busy && now.Sub(d.asked) >= diskEvery {
		d.busy, d.asked = true, now
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), diskPatience)
			defer cancel()
			r, err := count(ctx)
			d.mu.Lock()
			defer d.mu.Unlock()
			d.busy = false
			if err == nil {
				d.report = &r
			}
		}()
	}
	return d.report
}

func (c *collector) disk(s *sheet) {
	r := c.disks.last(time.Now(), c.src.Disk)
	if r == nil {
		return
	}
	kinds := map[spec.DiskKind]spec.DiskUse{}
	for _, i := range r.Items {
		u := kinds[i.Kind]
		u.Add(i.DiskUse)
		kinds[i.Kind] = u
	}
	for _, kind := range spec.DiskKinds {
		if slices.Contains(r.Missing, kind) {
			continue
		}
		s.number(diskBytes, float64(kinds[kind].Bytes), string(kind))
		s.number(diskInodes, float64(kinds[kind].Inodes), string(kind))
	}
	if len(r.Missing) == 0 {
		s.number(diskCounted, float64(r.Counted.Bytes))
		s.number(diskCollectable, float64(r.Collectable.Bytes))
	}
	if r.Budget > 0 {
		s.number(diskBudget, float64(r.Budget))
	}
	for _, f := range r.Filesystems {
		s.number(fsSize, float64(f.Size), f.Dir)
		s.number(fsAvailable, float64(f.Available), f.Dir)
		if f.Inodes > 0 {
			s.number(fsInodes, float64(f.Inodes), f.Dir)
			s.number(fsFreeInodes, float64(f.FreeInodes), f.Dir)
		}
	}
}
