package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dunnage/internal/regular"
	"dunnage/spec"
)

// History keeps events over restarts of the agent: a JSON object a line, in a
// current file and one that was full before. It isn't the store: nothing depends
// on it, so nothing is synced, a full disk costs events and no more, and who
// appends never waits. Its methods are safe for concurrent use.
type History struct {
	dir   string
	limit int64 // bytes of a file
	log   *slog.Logger
	queue chan *spec.Event // of pointers: it has room for thousands

	last spec.Event // the newest one at the start

	mu     sync.Mutex // of what follows, and of the files' names
	file   *os.File   // nil = to be opened
	size   int64      // of its whole lines
	oldest time.Time  // of the first event kept; zero = there is none

	trouble sync.Mutex // of what follows; never held while a disk is waited for
	failed  string     // why the last write failed; empty = it didn't
	lost    int        // events that aren't kept and of which Unkept hasn't told
}

const (
	// historySize bounds each of the two files. An event takes some 200 bytes:
	// that is 20,000 to 40,000 of them, the deploys of months.
	historySize = 4 << 20
	// historyQueue is how many events may wait for a slow disk. A deploy of fifty
	// replicas makes five hundred.
	historyQueue = 4096
	// historyRetry is how often a failed write is tried again where nothing happens.
	historyRetry = time.Second
	// historyRoom is the room that has to be there again: for a few events.
	historyRoom = 4096
)

// OpenHistory finds what is kept in dir. What can't be read there counts as
// nothing: events are no reason not to start.
func OpenHistory(dir string, log *slog.Logger) *History {
	h := &History{dir: dir, limit: historySize, log: log, queue: make(chan *spec.Event, historyQueue)}
	h.oldest = h.first()
	for _, path := range h.paths() {
		if _, last := ends(path); last.Seq > h.last.Seq {
			h.last = last
		}
	}
	return h
}

// paths are the files, the older one first.
func (h *History) paths() []string {
	return []string{filepath.Join(h.dir, "events.1.jsonl"), filepath.Join(h.dir, "events.jsonl")}
}

// tailSize is how much of a file's end is searched for its last whole line.
const tailSize = 64 << 10

// ends are the first and the last event of a file, zero where it has none.
func ends(path string) (first, last spec.Event) {
	f, err := regular.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return first, last
	}
	defer f.Close()
	eachEvent(f, func(e spec.Event) bool { first = e; return false })
	if info, err := f.Stat(); err == nil {
		_, err = f.Seek(max(info.Size()-tailSize, 0), io.SeekStart)
		if err == nil {
			eachEvent(f, func(e spec.Event) bool { last = e; return true })
		}
	}
	return first, last
}

// eachEvent reads whole lines until more says no. A line that is none of ours was
// torn by a crash or a power cut.
func eachEvent(r io.Reader, more func(spec.Event) bool) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var e spec.Event
		if json.Unmarshal(line, &e) == nil && e.Seq > 0 && !more(e) {
			return
		}
	}
}

// Last is the newest event that was kept before this process; zero without any.
func (h *History) Last() spec.Event { return h.last }

// Oldest is when the first event that is still kept happened; zero without any.
func (h *History) Oldest() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.oldest
}

// Append keeps e soon. It never blocks: where the disk is so slow that thousands
// wait, e is lost.
func (h *History) Append(e spec.Event) {
	select {
	case h.queue <- &e:
	default:
		h.trouble.Lock()
		defer h.trouble.Unlock()
		h.lost++
	}
}

// Unkept says why events aren't kept now, empty = they are, and how many aren't. Of
// a number without a reason it tells once.
func (h *History) Unkept() (why string, lost int) {
	h.trouble.Lock()
	defer h.trouble.Unlock()
	why, lost = h.failed, h.lost
	if why == "" {
		h.lost = 0
	}
	return why, lost
}

// Run writes what is appended until ctx ends, and then what is left.
func (h *History) Run(ctx context.Context) {
	for {
		var again <-chan time.Time
		if h.fails() {
			again = time.After(historyRetry)
		}
		select {
		case e := <-h.queue:
			h.write(*e)
			continue
		case <-again:
			h.retry()
			continue
		case <-ctx.Done():
		}
		for {
			select {
			case e := <-h.queue:
				h.write(*e)
				continue
			default:
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.close()
			return
		}
	}
}

func (h *History) write(e spec.Event) {
	line, err := json.Marshal(e)
	if err != nil {
		return // a type of ours that can't be encoded is a bug that tests see
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	err = h.append(append(line, '\n'))
	if err == nil && h.oldest.IsZero() {
		h.oldest = e.At
	}
	h.note(err, 1)
}

// note notes how a write of events has ended.
func (h *History) note(err error, events int) {
	h.trouble.Lock()
	defer h.trouble.Unlock()
	if err == nil {
		if h.failed != "" {
			h.log.Warn("events are kept again", "lost", h.lost)
		}
		h.failed = ""
		return
	}
	h.lost += events
	if text := err.Error(); text != h.failed {
		h.failed = text
		h.log.Warn("events aren't kept", "error", text)
	}
}

func (h *History) fails() bool {
	h.trouble.Lock()
	defer h.trouble.Unlock()
	return h.failed != ""
}

// retry finds out whether events can be kept again, without one.
func (h *History) retry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(h.tryRoom(), 0)
}

// tryRoom writes past the last line and takes it back.
func (h *History) tryRoom() error {
	if err := h.ready(historyRoom); err != nil {
		return err
	}
	_, err := h.file.WriteAt(make([]byte, historyRoom), h.size)
	if err := errors.Join(err, h.file.Truncate(h.size)); err != nil {
		h.close()
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}

// append writes a whole line or nothing.
func (h *History) append(line []byte) error {
	if err := h.ready(int64(len(line))); err != nil {
		return err
	}
	if _, err := h.file.WriteAt(line, h.size); err != nil {
		err = errors.Join(err, h.file.Truncate(h.size)) // of the half that there was room for
		h.close()
		return fmt.Errorf("write event: %w", err)
	}
	h.size += int64(len(line))
	return nil
}

// ready opens the file that room more bytes belong into.
func (h *History) ready(room int64) error {
	if h.file != nil && !h.current() {
		h.close() // nobody would read what is written there
		h.oldest = h.first()
	}
	if h.file == nil {
		if err := h.open(); err != nil {
			return err
		}
	}
	if h.size+room <= h.limit {
		return nil
	}
	if err := h.rotate(); err != nil {
		return err
	}
	return h.open()
}

// current reports whether the open file is still the one at its path, and as long
// as it was left. Who looks after a disk may remove, replace or empty it.
func (h *History) current() bool {
	now, err := os.Stat(h.paths()[1])
	if err != nil {
		return false
	}
	was, err := h.file.Stat()
	return err == nil && os.SameFile(now, was) && was.Size() == h.size
}

// first is when the first event in the files happened; zero without any.
func (h *History) first() time.Time {
	for _, path := range h.paths() {
		if first, _ := ends(path); !first.At.IsZero() {
			return first.At
		}
	}
	return time.Time{}
}

// rotate makes the current file the older one. The one that was it goes.
func (h *History) rotate() error {
	h.close()
	paths := h.paths()
	if err := os.Rename(paths[1], paths[0]); err != nil {
		return fmt.Errorf("rotate events: %w", err)
	}
	h.oldest = h.first()
	return nil
}

// open opens the current file, and cuts off the line that a crash has torn.
func (h *History) open() error {
	if err := regular.MkdirThrough(h.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of events: %w", err)
	}
	f, err := regular.Open(h.paths()[1], os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the file of events: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("look at the file of events: %w", err), f.Close())
	}
	size := info.Size()
	tail := make([]byte, min(size, tailSize))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil {
		return errors.Join(fmt.Errorf("read the file of events: %w", err), f.Close())
	}
	size -= int64(len(tail) - 1 - bytes.LastIndexByte(tail, '\n'))
	if err := f.Truncate(size); err != nil {
		return errors.Join(fmt.Errorf("cut a torn event off: %w", err), f.Close())
	}
	h.file, h.size = f, size
	return nil
}

func (h *History) close() {
	if h.file != nil {
		_ = h.file.Close() // nothing is buffered here
	}
	h.file = nil
}

// Read sends the kept events with after < Seq < before, oldest first, until send
// returns an error.
func (h *History) Read(after, before uint64, send func(spec.Event) error) error {
	files, err := h.openAll()
	defer func() {
		for _, f := range files {
			_ = f.Close() // read only
		}
	}()
	if err != nil {
		return err
	}
	for _, f := range files {
		var failed error
		eachEvent(f, func(e spec.Event) bool {
			if e.Seq > after && e.Seq < before {
				failed = send(e)
			}
			return failed == nil && e.Seq < before
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

// openAll opens both files at one time, so that none is missed while they rotate.
func (h *History) openAll() (files []*os.File, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, path := range h.paths() {
		f, err := regular.Open(path, os.O_RDONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, fmt.Errorf("read kept events: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}
