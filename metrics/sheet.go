package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dunnage/spec"
)

// sheet takes the series of one answer. What is over the limit is counted and
// left out, so the most important come first.
type sheet struct {
	out  chan<- prometheus.Metric
	left int // series that may still come
	cut  int
}

// room takes n series of what is left.
func (s *sheet) room(n int) bool {
	if s.left < n {
		s.cut += n
		return false
	}
	s.left -= n
	return true
}

// put sends a metric, or why it couldn't be made: that makes an error of the
// answer, and not a panic of the agent.
func (s *sheet) put(f *family, m prometheus.Metric, err error) {
	if err != nil {
		m = prometheus.NewInvalidMetric(f.desc, err)
	}
	s.out <- m
}

func (s *sheet) number(f *family, v float64, labels ...string) {
	if !s.room(1) {
		return
	}
	kind := prometheus.GaugeValue
	if f.kind == "counter" {
		kind = prometheus.CounterValue
	}
	m, err := prometheus.NewConstMetric(f.desc, kind, v, labels...)
	s.put(f, m, err)
}

func (s *sheet) yes(f *family, is bool, labels ...string) {
	v := 0.0
	if is {
		v = 1
	}
	s.number(f, v, labels...)
}

func (s *sheet) histogram(f *family, h spec.Histogram, labels ...string) {
	if !s.room(len(h.Bounds) + 3) { // the bucket without a bound, sum and count
		return
	}
	buckets := make(map[float64]uint64, len(h.Bounds))
	sum := uint64(0)
	for i, b := range h.Bounds {
		sum += h.Counts[i]
		buckets[b.Std().Seconds()] = sum
	}
	m, err := prometheus.NewConstHistogram(f.desc, h.Count, h.Sum.Std().Seconds(), buckets, labels...)
	s.put(f, m, err)
}

// summary sends sum and count alone.
func (s *sheet) summary(f *family, h spec.Histogram, labels ...string) {
	if !s.room(2) {
		return
	}
	m, err := prometheus.NewConstSummary(f.desc, h.Count, h.Sum.Std().Seconds(), nil, labels...)
	s.put(f, m, err)
}

func seconds(d time.Duration) float64 { return d.Seconds() }

// timestamp is in seconds since 1970.
func timestamp(t time.Time) float64 { return float64(t.UnixNano()) / float64(time.Second) }
