package logwriter

import (
	"bytes"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// Forward says where entries go besides the file.
type Forward struct {
	To       string // "journald", udp://ADDRESS:PORT, tcp://ADDRESS:PORT or unix:///PATH
	Tag      string // names the lines
	Host     string // this host's name, for a syslog
	Facility int    // of a syslog, 0 to 23 (RFC 5424, table 1)
	Format   string // of a syslog: rfc5424, rfc3164; empty = what its socket takes

	Project, Service, Replica string
}

// Forwarder sends entries on. Who adds them never waits: what doesn't fit is
// dropped and counted, and told of to the other end when it takes lines again.
// The file has them, but for what its disk didn't take.
type Forwarder struct {
	message func(b []byte, e entry) []byte
	to      *socket
	report  func(text string) // of the other end's failures, for the file

	mu      sync.Mutex
	pending []byte // entries
	dropped int

	added    chan struct{}
	sending  []byte
	buf      []byte
	failed   bool
	reported time.Time
}

const (
	// forwardRoom is how many bytes of entries wait for the other end.
	forwardRoom = 64 << 10
	// sendLimit is how long one message may take, and what is there at the end.
	sendLimit  = time.Second
	retrySend  = time.Second
	reportRest = time.Minute // between two reports in the file
)

// NewForwarder checks what f says; whether anybody listens there turns out
// later.
func NewForwarder(f Forward, w *Writer) (*Forwarder, error) {
	to, err := parseTarget(f.To)
	if err != nil {
		return nil, err
	}
	out := &Forwarder{to: to, added: make(chan struct{}, 1), message: f.syslog5424}
	switch {
	case f.To == journald:
		out.message = f.journal
	case f.Format == "rfc3164" || f.Format == "" && to.family == syscall.AF_UNIX:
		out.message = f.syslog3164
	}
	out.report = func(text string) {
		w.Write(AppendLine(nil, Line{At: time.Now(), Stream: Stderr, Text: fmt.Appendf(nil, "dunnage: forwarding to %s: %s", f.To, text)}))
	}
	return out, nil
}

// add takes entries to be sent.
func (f *Forwarder) add(entries []byte) {
	f.mu.Lock()
	if len(f.pending)+len(entries) <= forwardRoom {
		f.pending = append(f.pending, entries...)
	} else {
		f.dropped += count(entries)
	}
	f.mu.Unlock()
	select {
	case f.added <- struct{}{}:
	default: // it is told already
	}
}

// run sends until stop ends, and then what is there for sendLimit at most.
func (f *Forwarder) run(stop <-chan struct{}) {
	defer f.to.close()
	for {
		select {
		case <-f.added:
			f.sendAll(stop)
		case <-stop:
			f.sendAll(stop)
			return
		}
	}
}

// sendAll sends what is there.
func (f *Forwarder) sendAll(stop <-chan struct{}) {
	for {
		f.mu.Lock()
		f.sending, f.pending = f.pending, f.sending[:0]
		dropped := f.dropped
		f.dropped = 0
		f.mu.Unlock()
		if len(f.sending) == 0 && dropped == 0 {
			return
		}
		for e := range bytes.Lines(f.sending) {
			if !f.send(stop, parseEntry(e)) {
				return
			}
		}
		// They were dropped because those before them waited.
		if dropped > 0 && !f.send(stop, entry{
			stamp: time.Now().UTC().AppendFormat(nil, stamp), stream: []byte(Stderr), flag: 'F',
			text: fmt.Appendf(nil, "dunnage: %d lines were not forwarded: they came faster than they were taken; `dunnage logs` shows what this host keeps", dropped),
		}) {
			return
		}
	}
}

// send sends one entry, however long it takes; false means that the log has
// ended before.
func (f *Forwarder) send(stop <-chan struct{}, e entry) bool {
	f.buf = f.message(f.buf[:0], e)
	for {
		select {
		case <-stop:
			if f.to.deadline.IsZero() {
				f.to.deadline = time.Now().Add(sendLimit)
			}
		default:
		}
		err := f.to.send(f.buf)
		if err == nil || err == syscall.EMSGSIZE {
			if f.failed {
				f.failed = false
				f.tell("it works again")
			}
			return true
		}
		if !f.failed {
			f.failed = true
			f.tell(err.Error() + "; until it works again, lines are in this log alone")
		}
		select {
		case <-stop:
			return false
		case <-time.After(retrySend):
		}
	}
}

func (f *Forwarder) tell(text string) {
	if now := time.Now(); now.Sub(f.reported) >= reportRest {
		f.reported = now
		f.report(text)
	}
}

// entry is a Line whose parts stand in the buffer that it was read from.
type entry struct {
	stamp, stream []byte
	flag          byte
	text          []byte
}

// parseEntry reads what AppendLine wrote.
func parseEntry(b []byte) (e entry) {
	e.stamp, b, _ = bytes.Cut(bytes.TrimSuffix(b, []byte{'\n'}), []byte{' '})
	e.stream, b, _ = bytes.Cut(b, []byte{' '})
	if len(b) >= 2 {
		e.flag, e.text = b[0], b[2:]
	}
	return e
}
