package engine

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"dunnage/spec"
)

const (
	// restAfterWalk times what a walk took is how long its result holds: to count
	// directories costs a twentieth of one disk's time at most.
	restAfterWalk = 20
	// walkPatience is how long somebody waits for the walks that are due.
	walkPatience = 2 * time.Second
)

// walks remembers what directories take. Each is counted by one walk at a time,
// behind whoever asks: a volume of a million files takes longer than anybody
// waits.
type walks struct {
	mu    sync.Mutex
	known map[string]*walked
	busy  chan struct{} // closed when the round that runs is over; nil = none runs
}

// walked is what one directory takes.
type walked struct {
	whole       bool // counted to its end once
	use         spec.DiskUse
	at          time.Time
	took        time.Duration
	bytes, seen atomic.Int64 // of the first walk, as far as it has come
}

// refresh counts anew those of dirs whose time has come, forgets others, and
// waits for that as long as it makes sense. It is called with the whole list.
func (w *walks) refresh(ctx context.Context, agent context.Context, wg *sync.WaitGroup, dirs []string, skip map[string]bool) {
	w.mu.Lock()
	if w.busy == nil {
		before := w.known
		w.known = make(map[string]*walked, len(dirs))
		var due []string
		for _, dir := range dirs {
			d := before[dir]
			if d == nil {
				d = &walked{}
			}
			w.known[dir] = d
			if !d.whole || time.Since(d.at) > restAfterWalk*d.took {
				due = append(due, dir)
			}
		}
		busy := make(chan struct{})
		w.busy = busy
		wg.Go(func() {
			defer close(busy)
			w.round(agent, due, skip)
		})
	}
	busy := w.busy
	w.mu.Unlock()
	select {
	case <-busy:
	case <-time.After(walkPatience):
	case <-ctx.Done():
	}
}

func (w *walks) round(ctx context.Context, due []string, skip map[string]bool) {
	for _, dir := range due {
		w.mu.Lock()
		d := w.known[dir]
		w.mu.Unlock()
		began := time.Now()
		d.bytes.Store(0)
		d.seen.Store(0)
		use, err := walk(ctx, dir, skip, d)
		w.mu.Lock()
		if err == nil {
			d.whole, d.use = true, use
		}
		d.at, d.took = time.Now(), time.Since(began)
		w.mu.Unlock()
	}
	w.mu.Lock()
	w.busy = nil
	w.mu.Unlock()
}

// use is what is known of a directory; partly: its first walk is under way.
func (w *walks) use(dir string) (use spec.DiskUse, partly bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.known[dir]
	if d == nil {
		return use, true
	}
	if !d.whole {
		return spec.DiskUse{Bytes: d.bytes.Load(), Inodes: d.seen.Load()}, true
	}
	return d.use, false
}

// walk counts what a directory and all in it have been allocated, files of
// several names once, and nothing of another file system. What vanishes
// meanwhile isn't counted.
func walk(ctx context.Context, dir string, skip map[string]bool, progress *walked) (spec.DiskUse, error) {
	var use spec.DiskUse
	var device uint64
	linked := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if skip[path] && path != dir {
			return fs.SkipDir
		}
		var info fs.FileInfo
		if err == nil {
			info, err = entry.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if path == dir {
			device = st.Dev
		}
		if st.Dev != device {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !entry.IsDir() {
			if linked[st.Ino] {
				return nil
			}
			linked[st.Ino] = true
		}
		one := allocated(st)
		use.Add(one)
		if progress != nil {
			progress.bytes.Add(one.Bytes)
			progress.seen.Add(one.Inodes)
		}
		return nil
	})
	return use, err
}

// allocated is what a file has been given, in units of 512 bytes as stat(2) counts.
func allocated(st *syscall.Stat_t) spec.DiskUse {
	return spec.DiskUse{Bytes: st.Blocks * 512, Inodes: 1}
}
