package load

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Kind is a kind of traffic.
type Kind string

// The kinds of traffic.
const (
	New       Kind = "new"
	KeepAlive Kind = "keep-alive"
	Download  Kind = "download"
	UDP       Kind = "udp"
)

// Count is how many were asked and how many of them failed.
type Count struct {
	Asked  int `json:"asked"`
	Failed int `json:"failed"`
}

// Report is what came of a run. Times are in milliseconds. The longest gap and
// the latencies are those of new connections; a run without any takes the
// requests of the other kinds.
type Report struct {
	Asked   int            `json:"asked"`
	Failed  int            `json:"failed"`
	Reasons map[string]int `json:"reasons,omitempty"`
	Kinds   map[Kind]Count `json:"kinds"`

	LongestGap float64   `json:"longest_gap_ms"` // between two answers, one after the other
	GapAt      time.Time `json:"gap_at,omitzero"`
	P50        float64   `json:"p50_ms"` // from before the connect to the whole answer
	P99        float64   `json:"p99_ms"`
	Max        float64   `json:"max_ms"`

	// Late is how far the generator itself fell behind its schedule: a gap of
	// that size may be the generator's own.
	Late     float64        `json:"generator_late_ms"`
	Versions map[string]int `json:"versions"`
	Seconds  float64        `json:"seconds"`
}

// String is the report in one line.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "asked %d, failed %d, longest gap %.1f ms, p50 %.2f ms, p99 %.2f ms, max %.1f ms, versions", r.Asked, r.Failed, r.LongestGap, r.P50, r.P99, r.Max)
	for _, v := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(&b, " %s:%d", v, r.Versions[v])
	}
	for _, reason := range slices.Sorted(maps.Keys(r.Reasons)) {
		fmt.Fprintf(&b, "; %d x %s", r.Reasons[reason], reason)
	}
	return b.String()
}

// recorder collects outcomes from all goroutines.
type recorder struct {
	mu       sync.Mutex
	start    time.Time
	kinds    map[Kind]Count
	reasons  map[string]int
	versions map[string]int
	done     map[Kind][]time.Time
	took     map[Kind][]time.Duration
	due      time.Time // when the request after the last one would have been sent
	behind   time.Duration
}

func newRecorder() *recorder {
	return &recorder{
		start:    time.Now(),
		kinds:    map[Kind]Count{},
		reasons:  map[string]int{},
		versions: map[string]int{},
		done:     map[Kind][]time.Time{},
		took:     map[Kind][]time.Duration{},
	}
}

func (r *recorder) answered(k Kind, begun time.Time, a answer) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.kinds[k]
	c.Asked++
	r.kinds[k] = c
	r.done[k] = append(r.done[k], now)
	r.took[k] = append(r.took[k], now.Sub(begun))
	if a.version != "" {
		r.versions[a.version]++
	}
}

func (r *recorder) failed(k Kind, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.kinds[k]
	c.Asked++
	c.Failed++
	r.kinds[k] = c
	r.reasons[string(k)+": "+reason(err)]++
}

func (r *recorder) late(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.behind = max(r.behind, d)
}

func (r *recorder) lastDue(t time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due = t
}

func (r *recorder) report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := Report{
		Reasons:  r.reasons,
		Kinds:    r.kinds,
		Versions: r.versions,
		Late:     ms(r.behind),
		Seconds:  time.Since(r.start).Seconds(),
	}
	for _, c := range r.kinds {
		rep.Asked += c.Asked
		rep.Failed += c.Failed
	}
	k := r.measured()
	rep.LongestGap, rep.GapAt = r.longestGap(r.done[k])
	took := slices.Sorted(slices.Values(r.took[k]))
	rep.P50, rep.P99, rep.Max = quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1)
	return rep
}

// measured is the kind of traffic that gaps and latencies are taken from.
func (r *recorder) measured() Kind {
	for _, k := range []Kind{New, KeepAlive, UDP, Download} {
		if r.kinds[k].Asked > 0 {
			return k
		}
	}
	return New
}

// longestGap is the longest time without an answer, the run's beginning and
// end included: a server that never comes back has a gap until the end.
func (r *recorder) longestGap(done []time.Time) (float64, time.Time) {
	slices.SortFunc(done, time.Time.Compare)
	last, longest, at := r.start, time.Duration(0), r.start
	for _, t := range append(done, r.due) {
		if gap := t.Sub(last); gap > longest {
			longest, at = gap, last
		}
		last = t
	}
	return ms(longest), at
}

// quantile of sorted durations, in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return ms(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))])
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// reason says what failed without the addresses that make every error another.
func reason(err error) string {
	verb, _, _ := strings.Cut(err.Error(), ":")
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return verb + ": refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return verb + ": reset"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return verb + ": timeout"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return verb + ": ended early"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return verb + ": " + op.Err.Error()
	}
	return err.Error()
}
