package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// TestLogSources: services and replicas are chosen side by side; a number that
// runs hides the removed ones of it, but not from who names them in full.
func TestLogSources(t *testing.T) {
	e := &Engine{cfg: Config{StateDir: t.TempDir()}, started: &startRecords{dir: t.TempDir(), boot: "now"}}
	for id, running := range map[string]bool{
		"p-web-aaaaaaaa-1": false, "p-web-bbbbbbbb-1": true, "p-web-bbbbbbbb-2": true, "p-db-cccccccc-1": true, "p-job-dddddddd-1": false,
	} {
		path := e.cfg.logPath(spec.ReplicaKey{ID: id, Project: "p", Service: strings.Split(id, "-")[1]})
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if running {
			if err := e.started.put(id, startRecord{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	odd := e.cfg.logPath(spec.ReplicaKey{ID: "p-job-eeeeeeee-1", Project: "p", Service: "job"})
	if err := os.Mkdir(odd, 0o700); err != nil { // the newest, but no log
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(odd, later, later); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		services, replicas, want string
	}{
		{"", "", "p-db-cccccccc-1 p-job-dddddddd-1 p-web-bbbbbbbb-1 p-web-bbbbbbbb-2"},
		{"web", "", "p-web-bbbbbbbb-1 p-web-bbbbbbbb-2"},
		{"", "web-1", "p-web-bbbbbbbb-1"},
		{"db", "web-2", "p-db-cccccccc-1 p-web-bbbbbbbb-2"},
		{"", "p-web-aaaaaaaa-1", "p-web-aaaaaaaa-1"},
		{"", "job-1", "p-job-dddddddd-1"},
		{"", "web-3", ""},
	} {
		var got []string
		for _, s := range e.logSources(spec.LogRequest{Project: "p", Services: strings.Fields(c.services), Replicas: strings.Fields(c.replicas)}) {
			got = append(got, s.Replica)
		}
		if slices.Sort(got); strings.Join(got, " ") != c.want {
			t.Errorf("services %q, replicas %q: %v, want %s", c.services, c.replicas, got, c.want)
		}
	}
	for name, want := range map[string]string{"web-3": "web-3", "p-web-99999999-1": "p-web-99999999-1", "web-1": "", "p-web-aaaaaaaa-1": ""} {
		if got := e.unlogged(spec.LogRequest{Project: "p", Replicas: []string{"web-2", name}}); got != want {
			t.Errorf("without a log of %s: %q", name, got)
		}
	}
	for _, r := range []spec.LogRequest{{All: true}, {Since: time.Now()}, {Until: time.Now()}} {
		r.Project, r.Services = "p", []string{"web"}
		if got := e.logSources(r); len(got) != 3 {
			t.Errorf("%+v: %v, want the removed one too", r, got)
		}
	}
}

// TestLogsBeforeTheRedeploy: what the replica of the release before wrote is
// shown with a time, in order, but not without.
func TestLogsBeforeTheRedeploy(t *testing.T) {
	e := &Engine{cfg: Config{StateDir: t.TempDir()}, started: &startRecords{dir: t.TempDir(), boot: "now"}}
	for id, text := range map[string]string{
		"p-web-aaaaaaaa-1": "2026-11-22T12:00:00Z stdout F old starts\n2026-11-22T12:00:02Z stderr F old: database is gone\n",
		"p-web-bbbbbbbb-1": "2026-11-22T12:00:01Z stdout F new starts\n2026-11-22T12:00:03Z stdout F new: database is there\n",
	} {
		path := e.cfg.logPath(spec.ReplicaKey{ID: id, Project: "p", Service: "web"})
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.started.put("p-web-bbbbbbbb-1", startRecord{}); err != nil {
		t.Fatal(err)
	}
	at := func(second int) time.Time { return time.Date(2026, 11, 22, 12, 0, second, 0, time.UTC) }
	for _, c := range []struct {
		r    spec.LogRequest
		want string
	}{
		{spec.LogRequest{Tail: -1}, "new starts, new: database is there"},
		{spec.LogRequest{Tail: -1, All: true}, "old starts, new starts, old: database is gone, new: database is there"},
		{spec.LogRequest{Tail: -1, Since: at(1), Until: at(2)}, "new starts, old: database is gone"},
		{spec.LogRequest{Tail: 1, All: true, Grep: "(?i)DATABASE"}, "old: database is gone, new: database is there"},
	} {
		c.r.Project = "p"
		var got []string
		err := e.Logs(t.Context(), c.r, func(l spec.LogLine) error {
			got = append(got, string(l.Text))
			return nil
		})
		if text := strings.Join(got, ", "); err != nil || text != c.want {
			t.Errorf("%+v: %s, %v, want %s", c.r, text, err, c.want)
		}
	}
	if err := e.Logs(t.Context(), spec.LogRequest{Project: "p", Grep: "("}, nil); err == nil {
		t.Error("a bad expression was taken")
	}
}

// The last lines of a replica are to be had after it is removed, and a long one
// is cut.
func TestTail(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "no-such-verb")
	all := b.output(r)
	lines, err := b.Tail(b.ctx, r.ReplicaKey, time.Time{}, 1)
	if want := strings.Split(strings.TrimSuffix(all, "\n"), "\n"); err != nil || len(lines) != 1 || lines[0] != want[len(want)-1] {
		t.Errorf("%q, %v, want the last of %q", lines, err, want)
	}
	if lines, err := b.Tail(b.ctx, r.ReplicaKey, time.Now(), 1); err != nil || len(lines) > 0 {
		t.Errorf("%q, %v, though it wrote them before", lines, err)
	}
	none := r.ReplicaKey
	none.ID += "0"
	if lines, err := b.Tail(b.ctx, none, time.Time{}, 1); err != nil || len(lines) > 0 {
		t.Errorf("of one that never was: %q, %v", lines, err)
	}
}

// TestTailOfTwoStreams: an unfinished line of one stream doesn't swallow those of
// the other, and is shown too.
func TestTailOfTwoStreams(t *testing.T) {
	e := &Engine{cfg: Config{StateDir: t.TempDir()}}
	k := spec.ReplicaKey{ID: "p-web-aaaaaaaa-1", Project: "p", Service: "web"}
	long := strings.Repeat("x", longestTail)
	var log strings.Builder
	for i, entry := range []string{"stdout P " + long, "stderr F panic: no database", "stdout F the end", "stderr F goodbye", "stdout P cut"} {
		fmt.Fprintf(&log, "2026-01-02T03:04:%02d.000000000Z %s\n", i, entry)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(e.cfg.logPath(k)), 0o700), os.WriteFile(e.cfg.logPath(k), []byte(log.String()), 0o600)); err != nil {
		t.Fatal(err)
	}
	got, err := e.Tail(t.Context(), k, time.Time{}, 10)
	if want := []string{"panic: no database", long, "goodbye", "cut"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

// TestLogsOfAFailedDeploy: of three replicas a release, those that failed and were
// rolled back keep all their logs, and so does the release before the present one.
func TestLogsOfAFailedDeploy(t *testing.T) {
	e := &Engine{cfg: Config{StateDir: t.TempDir()}, started: &startRecords{dir: t.TempDir(), boot: "now"}}
	wrote := time.Now().Add(-time.Hour)
	var removed spec.ReplicaKey
	write := func(generation string, runs bool) {
		for n := range 3 {
			k := spec.ReplicaKey{ID: fmt.Sprintf("p-web-%s-%d", generation, n+1), Project: "p", Service: "web"}
			path := e.cfg.logPath(k)
			wrote = wrote.Add(time.Minute)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600), os.Chtimes(path, wrote, wrote)); err != nil {
				t.Fatal(err)
			}
			if removed = k; runs {
				if err := e.started.put(k.ID, startRecord{}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	names := func() string {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(e.cfg.logPath(removed)), "*"))
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range files {
			files[i] = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "p-web-"), ".log")
		}
		return strings.Join(files, " ")
	}
	write("running0", true)
	for i := range spec.OldLogs + 1 {
		write(fmt.Sprintf("removed%d", i), false)
	}
	e.pruneLogs(removed)
	var want []string
	for _, generation := range []string{"removed1", "removed2", "removed3", "removed4", "removed5", "running0"} {
		want = append(want, generation+"-1", generation+"-2", generation+"-3")
	}
	if got := names(); got != strings.Join(want, " ") {
		t.Errorf("kept %s", got)
	}
	if err := e.collectLogs(spec.OldLogsShort); err != nil {
		t.Fatal(err)
	}
	if got := names(); got != "removed5-1 removed5-2 removed5-3 running0-1 running0-2 running0-3" {
		t.Errorf("kept on a full disk: %s", got)
	}
}

// TestCollectFollowsNoLink: what a link in the logs' directory leads to isn't ours, at
// whichever level it is, and what else lies among the logs is nobody's trouble.
func TestCollectFollowsNoLink(t *testing.T) {
	e := &Engine{cfg: Config{StateDir: t.TempDir()}, started: &startRecords{dir: t.TempDir(), boot: "now"}}
	logs, theirs := e.cfg.logsDir(), t.TempDir()
	write := func(path string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("precious"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	kept := []string{
		theirs + "/web/foo.log", theirs + "/web/p-web-1-1.log", theirs + "/web/p-web-2-1.log.1", theirs + "/p-web-3-1.log",
		logs + "/README", logs + "/p/README", logs + "/p/web/README", logs + "/p/web/p-web-old-1.log.2/inside",
	}
	for _, path := range append(kept, logs+"/p/web/p-web-old-1.log", logs+"/p/web/p-web-old-1.log.1") {
		write(path)
	}
	for _, link := range []string{logs + "/p/linked", logs + "/linked"} {
		if err := os.Symlink(theirs, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(theirs+"/empty", 0o700), os.MkdirAll(logs+"/gone/web", 0o700), os.MkdirAll(logs+"/p/gone", 0o700)); err != nil {
		t.Fatal(err)
	}
	items, err := e.logItems(0)
	if err != nil || len(items) != 1 || items[0].Name != "p-web-old-1" || items[0].Project != "p" || items[0].Service != "web" || len(items[0].files) != 2 {
		t.Errorf("counted %+v, %v", items, err)
	}
	for _, k := range []spec.ReplicaKey{{ID: "x", Project: "p", Service: "linked"}, {ID: "x", Project: "linked", Service: "web"}} {
		e.pruneLogs(k)
	}
	if err := e.collectLogs(0); err != nil {
		t.Error(err)
	}
	for _, path := range kept {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if left, err := e.logItems(0); err != nil || len(left) != 0 {
		t.Errorf("left %+v, %v", left, err)
	}
	for path, stays := range map[string]bool{theirs + "/empty": true, logs + "/linked": true, logs + "/gone": false, logs + "/p/gone": false} {
		if _, err := os.Lstat(path); (err == nil) != stays {
			t.Errorf("%s: %v", path, err)
		}
	}

	// A link that has taken a directory's place since it was counted.
	if err := errors.Join(os.RemoveAll(logs+"/p/web"), os.Symlink(theirs+"/web", logs+"/p/web")); err != nil {
		t.Fatal(err)
	}
	items[0].files = []string{"foo.log"}
	if err := e.cfg.removeLog(items[0]); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(kept[0]); err != nil {
		t.Error(err)
	}
}

// Of many errors alike one is told.
func TestOneOf(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	for _, tc := range []struct {
		errs []error
		want string
	}{
		{[]error{nil, nil}, "<nil>"},
		{[]error{nil, one}, "one"},
		{[]error{one, nil, two}, "one; and 1 more like it"},
		{[]error{one, two, two}, "one; and 2 more like it"},
	} {
		if err := oneOf(tc.errs); fmt.Sprint(err) != tc.want || err != nil && !errors.Is(err, one) {
			t.Errorf("%v, want %s", err, tc.want)
		}
	}
}
