package logwriter

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"
)

// readSize lets a burst of short lines be taken with one read. It must be
// larger than MaxText.
const readSize = 64 << 10

// Options are what Run does beside writing the file.
type Options struct {
	Compress Compressor // of older files; nil = they stay as they are
	Forward  *Forwarder // gets the same lines; nil = nobody does
}

// Run reads the streams of a container, by name, to their ends and writes their
// lines. It keeps reading whatever happens to the file: a full pipe would stop
// the container. A stream's last line counts as whole even without an end.
func Run(w *Writer, streams map[string]io.Reader, o Options) error {
	q := newQueue(w)
	var copies, others sync.WaitGroup
	errs := make([]error, 0, len(streams))
	var mu sync.Mutex
	for name, r := range streams {
		s := &splitter{queue: q, stream: name, longest: w.longest(), forward: o.Forward, timer: time.NewTimer(patience)}
		copies.Go(func() {
			err := s.copy(r)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	stop := make(chan struct{})
	if o.Compress != nil {
		others.Go(func() { w.compressOlder(stop, o.Compress) })
	}
	if o.Forward != nil {
		others.Go(func() { o.Forward.run(stop) })
	}
	others.Go(q.drain)
	copies.Wait()
	close(q.full)
	close(stop)
	others.Wait()
	return errors.Join(errs...)
}

// splitter makes entries of a stream.
type splitter struct {
	queue   *queue
	stream  string
	longest int // text of an entry
	forward *Forwarder
	timer   *time.Timer

	brake brake

	head []byte // what the entries of one read begin with
	now  *batch // being filled; nil = none
	lost int    // lines dropped since the last batch
}

func (s *splitter) copy(r io.Reader) error {
	buf := make([]byte, readSize)
	have := 0 // bytes of an unfinished line at the start of buf
	for {
		n, err := r.Read(buf[have:])
		s.head = appendHead(s.head[:0], time.Now(), s.stream)
		rest := s.split(buf[:have+n])
		if err != nil && len(rest) > 0 {
			s.add(rest, false)
		}
		s.flush()
		if err != nil {
			s.end()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		have = copy(buf, rest)
		time.Sleep(s.brake.pause(n, time.Now()))
	}
}

// split adds the lines in data, and returns the unfinished one at its end,
// shorter than longest.
func (s *splitter) split(data []byte) []byte {
	for {
		i := bytes.IndexByte(data, '\n')
		part := i < 0 && len(data) >= s.longest || i > s.longest
		switch {
		case part:
			s.add(data[:s.longest], true)
			data = data[s.longest:]
		case i < 0:
			return data
		default:
			s.add(data[:i], false)
			data = data[i+1:]
		}
	}
}

func (s *splitter) add(text []byte, partial bool) {
	if s.now != nil && len(s.now.entries)+len(s.head)+len(text)+3 > batchSize {
		s.flush()
	}
	if s.now == nil {
		s.now = s.queue.take(s.timer)
	}
	if s.now == nil {
		if !partial {
			s.lost++
		}
		return
	}
	s.now.entries = appendText(append(s.now.entries, s.head...), text, partial)
}

// flush sends the batch to be written.
func (s *splitter) flush() {
	if s.now == nil {
		return
	}
	if s.forward != nil {
		s.forward.add(s.now.entries)
	}
	s.now.lost, s.lost = s.lost, 0
	s.queue.full <- s.now
	s.now = nil
}

// end tells of the lines that nothing came after.
func (s *splitter) end() {
	if s.lost > 0 {
		s.now = <-s.queue.free
		s.flush()
	}
}
