package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// world is what the sources of a test answer.
type world struct {
	status spec.Status
	usage  []spec.Usage
	counts spec.Counted
	reach  []spec.Reach
	visits []spec.VisitCount
	probes []spec.ProbeCount
	calls  []spec.CallCount
	disk   func(context.Context) (spec.DiskReport, error)
}

func (w *world) sources() Sources {
	return Sources{
		Version:   "v1",
		Status:    func(context.Context) (spec.Status, error) { return w.status, nil },
		Counted:   func() spec.Counted { return w.counts },
		Latency:   func() (time.Duration, bool) { return 2 * time.Millisecond, true },
		Reach:     func() []spec.Reach { return w.reach },
		Visits:    func() []spec.VisitCount { return w.visits },
		Probes:    func() []spec.ProbeCount { return w.probes },
		Calls:     func() []spec.CallCount { return w.calls },
		Conntrack: func() (spec.ConntrackFill, error) { return spec.ConntrackFill{Entries: 5, Limit: 100}, nil },
		Usage:     func(context.Context) ([]spec.Usage, error) { return w.usage, nil },
		Disk: func(ctx context.Context) (spec.DiskReport, error) {
			if w.disk == nil {
				return spec.DiskReport{}, spec.ErrUnavailable
			}
			return w.disk(ctx)
		},
		StoreSize: func() (int64, error) { return 65536, nil },
	}
}

// deploy fills the world with services of so many replicas each, whose
// generations are of a round.
func (w *world) deploy(services, each, round int) {
	now := time.Unix(1_700_000_000, 0)
	answered := spec.NewHistogram(spec.CallBounds)
	answered.Observe(time.Millisecond)
	*w = world{
		status: spec.Status{At: now}, disk: w.disk,
		counts: spec.Counted{
			Operations: map[spec.OperationCount]uint64{{Project: "p0", Kind: "deploy", Outcome: spec.OperationDone}: uint64(round)},
			Durations:  map[string]spec.Histogram{"deploy": spec.NewHistogram(spec.DeployBounds)},
			Events:     map[spec.EventKind]uint64{spec.EventReady: 1}, Actions: map[spec.ActionCount]spec.Histogram{{Action: "create"}: {}, {Action: "create", Failed: true}: {}},
			Look: spec.NewHistogram(spec.WorkBounds), Plan: spec.NewHistogram(spec.WorkBounds), Swap: spec.NewHistogram(spec.WorkBounds),
		},
		calls: []spec.CallCount{{Group: "tasks", Took: spec.NewHistogram(spec.CallBounds)}},
	}
	for i := range services {
		project, service := fmt.Sprintf("p%d", i/10), fmt.Sprintf("s%d", i)
		s := spec.ServiceStatus{Name: service, Generation: fmt.Sprintf("%08x", round), Wanted: each, Ready: each}
		for n := range each {
			r := spec.ReplicaStatus{Project: project, Service: service, Number: n + 1, Replica: fmt.Sprintf("%s-%s-%08x-%d", project, service, round, n+1), State: spec.StateReady, Restarts: n}
			s.Replicas = append(s.Replicas, r)
			w.usage = append(w.usage, spec.Usage{
				Project: project, Service: service, Replica: r.Replica, CPU: spec.Duration(time.Second), CPULimit: 1, Memory: 1 << 20, MemoryLimit: 1 << 30, Pids: 3, PidsLimit: 100,
			})
		}
		if i%10 == 0 {
			w.status.Projects = append(w.status.Projects, spec.ProjectStatus{Name: project, Release: round})
		}
		p := &w.status.Projects[len(w.status.Projects)-1]
		p.Services = append(p.Services, s)
		w.reach = append(w.reach,
			spec.Reach{VisitTarget: spec.VisitTarget{Project: project, Service: service, Addr: netip.MustParseAddrPort("192.0.2.1:80"), Port: 80}, State: spec.ReachReachable},
			spec.Reach{VisitTarget: spec.VisitTarget{Project: project, Service: service, From: spec.FromHost, Addr: netip.MustParseAddrPort("[fd00::1]:80")}, State: spec.ReachUnreachable})
		w.visits = append(w.visits, spec.VisitCount{Project: project, Service: service, Answered: answered})
		w.probes = append(w.probes, spec.ProbeCount{Project: project, Service: service, Kind: spec.ProbeHTTP})
	}
}

var quiet = slog.New(slog.DiscardHandler)

// ask returns the series of an answer that are ours, with their values.
func ask(t testing.TB, h http.Handler) map[string]string {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if rec.Code != http.StatusOK {
		t.Fatalf("status %d: %s", rec.Code, rec.Body)
	}
	out := map[string]string{}
	for line := range strings.Lines(rec.Body.String()) {
		if i := strings.LastIndexByte(line, ' '); strings.HasPrefix(line, "dunnage_") && i > 0 {
			out[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return out
}

func newTestHandler(t testing.TB, w *world, limit int) http.Handler {
	t.Helper()
	h, err := handler(w.sources(), quiet, limit)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A redeploy makes no series that weren't there before: nothing is named by a
// generation, a release or an image.
func TestSeriesDontGrow(t *testing.T) {
	var w world
	w.deploy(30, 10, 1)
	h := newTestHandler(t, &w, maxSeries)
	first := ask(t, h)
	for round := 2; round <= 20; round++ {
		before := w
		w.deploy(30, 10, round)
		if round%2 == 0 { // while the old generation is still there
			for i, p := range before.status.Projects {
				for j, s := range p.Services {
					both := &w.status.Projects[i].Services[j]
					both.Replicas = append(both.Replicas, s.Replicas...)
				}
			}
			w.usage = append(w.usage, before.usage...)
		}
		now := ask(t, h)
		for s := range now {
			if _, was := first[s]; !was {
				t.Errorf("round %d has a new series: %s", round, s)
			}
		}
		if len(now) != len(first) || len(now) < 300*11 {
			t.Fatalf("round %d: %d series, the first had %d", round, len(now), len(first))
		}
	}
}

func TestNumbers(t *testing.T) {
	var w world
	w.deploy(1, 2, 7)
	svc := &w.status.Projects[0].Services[0]
	svc.Replicas[1].State, svc.Replicas[1].Unwritten = spec.StateUnhealthy, true
	svc.Ready, svc.Waiting, svc.Unreachable = 1, "s0-2 is unhealthy", "192.0.2.1:80: no answer"
	old := svc.Replicas[0]
	old.Replica, old.Restarts, old.State = "p0-s0-00000006-1", 4, spec.StateDraining
	svc.Replicas = append(svc.Replicas, old)
	w.status.Problems = []string{"containerd is slow"}
	w.visits[0].Failed = 3
	// The same service in another network can't be reached there.
	w.reach = append(w.reach, spec.Reach{VisitTarget: spec.VisitTarget{Project: "p0", Service: "s0", Addr: netip.MustParseAddrPort("192.0.2.2:80"), Port: 80}, State: spec.ReachUnreachable},
		spec.Reach{VisitTarget: spec.VisitTarget{Project: "p0", Service: "s0", Addr: netip.MustParseAddrPort("192.0.2.2:81"), Port: 81}})
	w.counts.Repairs = map[spec.DamageKind]uint64{spec.DamageChain: 2}
	w.counts.Operations[spec.OperationCount{Project: "new", Kind: "scale", Outcome: spec.OperationDone}] = 0 // at work
	w.counts.Look.Observe(2 * time.Millisecond)
	w.counts.Look.Observe(time.Hour)
	got := ask(t, newTestHandler(t, &w, maxSeries))
	of := `{project="p0",service="s0"}`
	for series, want := range map[string]string{
		"dunnage_service_replicas_wanted" + of:                                                       "2",
		"dunnage_service_replicas_ready" + of:                                                        "1",
		"dunnage_service_converged" + of:                                                             "0",
		"dunnage_service_unreachable" + of:                                                           "1",
		"dunnage_service_replicas_unwritten" + of:                                                    "1",
		`dunnage_service_replicas{project="p0",service="s0",state="draining"}`:                       "1",
		`dunnage_replica_restarts_total{project="p0",replica="1",service="s0"}`:                      "4", // of the old one
		`dunnage_replica_memory_bytes{project="p0",replica="1",service="s0"}`:                        "1.048576e+06",
		`dunnage_replica_cpu_seconds_total{project="p0",replica="1",service="s0"}`:                   "0", // what was before isn't known
		`dunnage_target_reachable{family="ipv4",from="outside",port="80",project="p0",service="s0"}`: "0",
		`dunnage_target_reachable{family="ipv6",from="host",port="",project="p0",service="s0"}`:      "0",
		"dunnage_visits_total" + of:                                                                  "4",
		"dunnage_visits_failed_total" + of:                                                           "3",
		`dunnage_visit_duration_seconds_bucket{project="p0",service="s0",le="0.001"}`:                "1",
		`dunnage_look_duration_seconds_bucket{le="0.001"}`:                                           "0",
		`dunnage_look_duration_seconds_bucket{le="0.005"}`:                                           "1",
		`dunnage_look_duration_seconds_bucket{le="+Inf"}`:                                            "2",
		`dunnage_repairs_total{kind="chain"}`:                                                        "2",
		`dunnage_repairs_total{kind="jump"}`:                                                         "0",
		`dunnage_operations_total{kind="deploy",outcome="done",project="p0"}`:                        "7",
		`dunnage_operations_total{kind="deploy",outcome="failed",project="p0"}`:                      "0",
		`dunnage_operations_total{kind="scale",outcome="failed",project="new"}`:                      "0",
		`dunnage_operations_total{kind="scale",outcome="rolled-back",project="new"}`:                 "0",
		"dunnage_problems":                    "1",
		"dunnage_containerd_up":               "1",
		"dunnage_conntrack_entries_limit":     "100",
		"dunnage_store_size_bytes":            "65536",
		"dunnage_last_look_timestamp_seconds": "1.7e+09",
		"dunnage_metrics_cut_series":          "0",
	} {
		if got[series] != want {
			t.Errorf("%s is %q, want %q", series, got[series], want)
		}
	}
	for series := range got {
		if strings.Contains(series, `port="81"`) {
			t.Errorf("%s: what isn't known is told", series)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(slices.Sorted(maps.Keys(got)), "\n"))
	}
}

// What a slot has used goes on over generations, and never back.
func TestUsed(t *testing.T) {
	var u used
	where := slot{"p", "s", 1}
	at := map[string]slot{"old": where, "new": where}
	step := func(want time.Duration, now ...spec.Usage) {
		t.Helper()
		u.take(now, at)
		if got := u.sums[where].CPU.Std(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	use := func(id string, seconds int) spec.Usage {
		return spec.Usage{Replica: id, CPU: spec.Duration(time.Duration(seconds) * time.Second)}
	}
	step(0, use("old", 1000)) // of the time before
	step(5*time.Second, use("old", 1005))
	step(8*time.Second, use("old", 1006), use("new", 2)) // the new one from its start
	step(9*time.Second, use("new", 3))
	step(9 * time.Second) // neither runs for a moment
	step(10*time.Second, use("new", 1))
	at = map[string]slot{}
	u.take(nil, at)
	if len(u.sums) != 0 || len(u.before) != 0 {
		t.Errorf("what is gone is kept: %v, %v", u.sums, u.before)
	}
}

// Too many series are cut, replicas first, and told of.
func TestSeriesAreBounded(t *testing.T) {
	var w world
	w.deploy(30, 10, 1)
	whole := ask(t, newTestHandler(t, &w, maxSeries))
	got := ask(t, newTestHandler(t, &w, 1000))
	if len(got) > 1000 || got["dunnage_metrics_cut_series"] != fmt.Sprint(len(whole)-len(got)) {
		t.Errorf("%d of %d series, %s cut", len(got), len(whole), got["dunnage_metrics_cut_series"])
	}
	if got["dunnage_problems"] != "0" || got[`dunnage_service_replicas_wanted{project="p2",service="s29"}`] != "10" {
		t.Error("the important ones aren't there")
	}
}

// An answer doesn't wait for a walk over the disk, nor does every answer begin one.
func TestDiskIsntAwaited(t *testing.T) {
	var w world
	w.deploy(1, 1, 1)
	counts, goOn := make(chan bool, 10), make(chan bool)
	w.disk = func(ctx context.Context) (spec.DiskReport, error) {
		counts <- true
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return spec.DiskReport{
			Budget: 100, Counted: spec.DiskUse{Bytes: 30}, Items: []spec.DiskItem{{Kind: spec.DiskLayers, DiskUse: spec.DiskUse{Bytes: 10}}, {Kind: spec.DiskLayers, DiskUse: spec.DiskUse{Bytes: 20, Inodes: 2}}},
			Filesystems: []spec.Filesystem{{Dir: "/x", Size: 1000, Available: 400}},
		}, nil
	}
	h := newTestHandler(t, &w, maxSeries)
	for range 3 {
		if got := ask(t, h); got["dunnage_disk_counted_bytes"] != "" {
			t.Fatal("counted before it was")
		}
	}
	close(goOn)
	var got map[string]string
	for end := time.Now().Add(20 * time.Second); got["dunnage_disk_counted_bytes"] == "" && time.Now().Before(end); {
		got = ask(t, h)
	}
	for series, want := range map[string]string{
		"dunnage_disk_counted_bytes": "30", "dunnage_disk_budget_bytes": "100", `dunnage_disk_used_bytes{kind="layers"}`: "30", `dunnage_disk_used_inodes{kind="layers"}`: "2",
		`dunnage_disk_used_bytes{kind="volumes"}`: "0", `dunnage_filesystem_available_bytes{dir="/x"}`: "400",
	} {
		if got[series] != want {
			t.Errorf("%s is %q, want %q", series, got[series], want)
		}
	}
	if len(counts) != 1 {
		t.Errorf("counted %d times", len(counts))
	}
}

// A source that panics costs the answer and not the agent.
func TestSourceThatPanics(t *testing.T) {
	var w world
	src := w.sources()
	src.Counted = func() spec.Counted { panic("oh") }
	h, err := Handler(src, quiet)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(rec.Body.String(), "go_goroutines") {
		t.Errorf("status %d: %s", rec.Code, rec.Body)
	}
}

// An address in use stops nobody, is told of, and is taken as soon as it is free.
func TestServer(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var w world
	w.deploy(1, 1, 1)
	addr := netip.MustParseAddrPort(taken.Addr().String())
	s := NewServer(addr, newTestHandler(t, &w, maxSeries), quiet)
	s.again = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() { s.Run(ctx); close(done) }()
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not %s; %q", what, s.Problem())
			}
		}
	}
	await("told", func() bool { return strings.Contains(s.Problem(), "address already in use; free the port") })
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	answer := func(method, path string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr.String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	await("served", func() bool { return answer(http.MethodGet, "/metrics") == http.StatusOK })
	if s.Problem() != "" {
		t.Errorf("still told: %s", s.Problem())
	}
	for path, want := range map[string]int{"/": 404, "/v1/status": 404, "/debug/pprof/": 404} {
		if got := answer(http.MethodGet, path); got != want {
			t.Errorf("GET %s: %d, want %d", path, got, want)
		}
	}
	if got := answer(http.MethodPost, "/metrics"); got != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", got)
	}
	cancel()
	<-done
}

var (
	named = regexp.MustCompile(`^dunnage_[a-z]+(_[a-z]+)*$`)
	units = regexp.MustCompile(`_(seconds|bytes|inodes|cores|entries|limit|info|free|total)$`)
)

// Names follow Prometheus' conventions, and helps are sentences.
func TestFamilies(t *testing.T) {
	for _, f := range families {
		base := strings.TrimSuffix(f.name, "_total")
		switch {
		case !named.MatchString(f.name), (f.kind == "counter") != (base != f.name):
			t.Errorf("%s, a %s, isn't named as it should be", f.name, f.kind)
		case (f.kind == "histogram" || f.kind == "summary") && !units.MatchString(f.name):
			t.Errorf("%s has no unit", f.name)
		case !strings.HasSuffix(f.help, ".") || strings.Contains(f.help, "  "):
			t.Errorf("%s: help %q", f.name, f.help)
		}
	}
}

// row is a family as the table of docs/operations.md shows it.
func row(f *family) string {
	name := f.name
	if len(f.labels) > 0 {
		name += "{" + strings.Join(f.labels, ", ") + "}"
	}
	return fmt.Sprintf("| `%s` | %s | %s |", name, f.kind, f.help)
}

// The table of the manual is what the agent exports.
func TestTableOfTheManual(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, f := range families {
		want = append(want, row(f))
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "| `dunnage_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/operations.md has another table; it should be\n%s", strings.Join(want, "\n"))
	}
}

// Fifty services of one replica each: what an answer costs. CPU is what counts;
// nothing in it waits.
func BenchmarkAnswer(b *testing.B) {
	var w world
	w.deploy(50, 1, 1)
	h := newTestHandler(b, &w, maxSeries)
	b.ReportAllocs()
	for b.Loop() {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if rec.Code != http.StatusOK {
			b.Fatal(errors.New(rec.Body.String()))
		}
	}
	b.ReportMetric(float64(len(ask(b, h))), "series")
}
