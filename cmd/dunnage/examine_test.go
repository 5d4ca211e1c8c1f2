package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/engine/logwriter"
	"dunnage/orchestrator"
	"dunnage/spec"
)

// A link in the place of a project's or a service's logs is named, and so is whether
// it leads somewhere. What lies there isn't looked at.
func TestLogLinks(t *testing.T) {
	logs, elsewhere := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(logs, "shop"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, to := range map[string]string{
		logs + "/blog": elsewhere + "/gone", logs + "/wiki": elsewhere, logs + "/shop/web": "gone", logs + "/shop/api": elsewhere,
		elsewhere + "/theirs": "gone",
	} {
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, f := range logLinks(logs) {
		got = append(got, fmt.Sprintf("ok=%t %s", f.OK, f.Text))
		if !f.OK && !strings.Contains(f.Next, "`rm "+logs+"/") {
			t.Errorf("next: %s", f.Next)
		}
	}
	for i, want := range []string{
		"ok=false " + logs + "/blog is a link to " + elsewhere + "/gone, which isn't there",
		"ok=true " + logs + "/wiki is a link to " + elsewhere + ": logs that are written there are neither counted nor ever removed",
		"ok=true " + logs + "/shop/api is a link to " + elsewhere + ": ",
		"ok=false " + logs + "/shop/web is a link to gone, which isn't there",
	} {
		if len(got) != 4 || !strings.HasPrefix(got[i], want) {
			t.Fatalf("found %q, want %q", got, want)
		}
	}
}

// A check that hangs is a finding, and holds up no other one.
func TestExamineWaitsForNobody(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	began := time.Now()
	all := examine(t.Context(), 500*time.Millisecond, []check{
		{"hangs", func(context.Context) []spec.Finding { <-release; return nil }},
		{"fine", func(context.Context) []spec.Finding { return fine("it is") }},
		{"late", func(ctx context.Context) []spec.Finding { <-ctx.Done(); return []spec.Finding{wrong("", "no answer")} }},
	})
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if len(all) != 3 || all[0].Check != "hangs" || all[0].OK || !strings.Contains(all[0].Text, "isn't done within 500ms") ||
		all[1] != (spec.Finding{Check: "fine", OK: true, Text: "it is"}) || all[2].Check != "late" {
		t.Errorf("%+v", all)
	}
	all = append(all, warned("", "soon"))
	worstFirst(all)
	for i, want := range []string{"the check isn't", "no answer", "soon", "it is"} {
		if !strings.HasPrefix(all[i].Text, want) {
			t.Errorf("%d: %+v, want %q", i, all[i], want)
		}
	}
}

// level is how bad findings are at worst.
func level(all []spec.Finding) string {
	worst := "ok"
	for _, f := range all {
		switch {
		case !f.OK:
			return "wrong"
		case f.Warn:
			worst = "warn"
		}
	}
	return worst
}

func TestHostFindings(t *testing.T) {
	const gib = 1 << 30
	one := func(f spec.Finding) []spec.Finding { return []spec.Finding{f} }
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		found []spec.Finding
		level string
		says  string
	}{
		"disk":                  {one(space{"/d", 100 * gib, 50 * gib, 1000, 900, 0}.finding()), "ok", "/d has 50.0 GiB of 100.0 GiB free"},
		"disk nearly full":      {one(space{"/d", 100 * gib, 6 * gib, 1000, 900, 0}.finding()), "warn", "6.0 GiB"},
		"disk full":             {one(space{"/d", 100 * gib, 2 * gib, 1000, 900, 0}.finding()), "wrong", "deploys that don't fit are refused"},
		"only root's reserve":   {one(space{"/d", 100 * gib, 0, 1000, 900, 5 * gib}.finding()), "wrong", "/d has 0 B of 100.0 GiB free (and 5.0 GiB for root alone)"},
		"large disk":            {one(space{"/d", 20000 * gib, 300 * gib, 0, 0, 0}.finding()), "ok", ""},
		"inodes":                {one(space{"/d", 100 * gib, 50 * gib, 1000, 20, 0}.finding()), "wrong", "20 of 1000 inodes"},
		"inodes nearly gone":    {one(space{"/d", 100 * gib, 50 * gib, 1000, 80, 0}.finding()), "warn", "80 of 1000 inodes"},
		"clock":                 {one(clockFinding(at, unix.TIME_OK, 0)), "ok", "synchronised"},
		"clock unwatched":       {one(clockFinding(at, unix.TIME_ERROR, unix.STA_UNSYNC)), "warn", "nobody keeps"},
		"clock of 1970":         {one(clockFinding(time.Unix(100, 0), unix.TIME_OK, 0)), "wrong", "1970-01-01"},
		"conntrack":             {examineConntrack(100, 65536), "ok", "100 of 65536"},
		"conntrack filling":     {examineConntrack(50000, 65536), "warn", "filling up"},
		"conntrack full":        {examineConntrack(65000, 65536), "wrong", "drops new connections"},
		"no conntrack":          {examineConntrack(-1, -1), "ok", "isn't in use"},
		"good runc":             {judge("runc", "1.3.4", knownRunc), "ok", "runc 1.3.4"},
		"old runc":              {judge("runc", "1.1.5+ds1", knownRunc), "warn", "CVE-2024-21626"},
		"runc of 2025":          {judge("runc", "1.3.2", knownRunc), "warn", "CVE-2025-31133"},
		"runc 1.2.8":            {judge("runc", "1.2.8", knownRunc), "ok", ""},
		"runc that freezes":     {judge("runc", "1.0.0", knownRunc), "wrong", "runc#3085"},
		"containerd":            {judge("containerd", "1.6.20~ds1", knownContainerd), "ok", ""},
		"containerd 2":          {judge("containerd", "v2.2.0", knownContainerd), "ok", ""},
		"containerd that hangs": {judge("containerd", "1.7.7", knownContainerd), "warn", "containerd#9103"},
		"containerd that loses": {judge("containerd", "1.7.21", knownContainerd), "warn", "containerd#10589"},
		"containerd 1.7.22":     {judge("containerd", "1.7.22", knownContainerd), "ok", ""},
		"ancient containerd":    {judge("containerd", "1.4.13", knownContainerd), "wrong", "no longer maintained"},
		"kernel":                {judge("Linux", "6.1.0-41-cloud-amd64", knownKernels), "ok", "Linux 6.1.0-41"},
		"ancient kernel":        {judge("Linux", "4.19.0-27", knownKernels), "wrong", "pidfd_open"},
		"no version":            {judge("runc", "unknown", knownRunc), "warn", "says nothing"},
		"reached":               {portFindings([]spec.Reach{{State: spec.ReachReachable}}, nil), "ok", "1 target visited"},
		"not reached": {portFindings([]spec.Reach{{VisitTarget: spec.VisitTarget{Project: "shop", Service: "web", Addr: netip.MustParseAddrPort("192.0.2.1:80")},
			State: spec.ReachUnreachable, Detail: "no answer within 1s"}}, nil), "wrong", "web of shop can't be reached at 192.0.2.1:80: no answer within 1s"},
		"not asked": {portFindings([]spec.Reach{{Unasked: "its allow list leaves the visitor out"}}, nil), "warn", "allow list"},
		"a rule of others": {portFindings(nil, obstructedFindings([]orchestrator.Obstruction{{Verdict: "connections are dropped by iptables-nft raw PREROUTING, rule 1: -j DROP",
			At: []string{"shop/web at 192.0.2.1:80", "shop/web at 192.0.2.1:81", "shop/web at 192.0.2.1:82", "shop/web at 192.0.2.1:83"}}}, 0)), "wrong",
			"shop/web at 192.0.2.1:80, shop/web at 192.0.2.1:81, shop/web at 192.0.2.1:82 and 1 more: connections are dropped by iptables-nft raw PREROUTING, rule 1"},
		"a chain at a link": {portFindings(nil, obstructedFindings([]orchestrator.Obstruction{{Maybe: true, Verdict: "some connections may die: nft netdev early in", At: []string{"shop/web at 192.0.2.1:80"}}}, 0)), "warn",
			"shop/web at 192.0.2.1:80: some connections may die: nft netdev early in"},
		"a problem of the agent":       {examineHost(spec.Status{Problems: []string{"a rule drops everything: -j DROP; delete it; or narrow it"}}, spec.KeyStatus{}), "wrong", "a rule drops everything: -j DROP\n"},
		"a budget that is used up":     {examineHost(spec.Status{Problems: []string{"disk: 9 of 8 are in use; look"}}, spec.KeyStatus{})[:1], "wrong", "9 of 8 are in use\n"},
		"a budget that nearly is":      {examineHost(spec.Status{Warnings: []string{"disk: 7 of 8 are in use; look"}}, spec.KeyStatus{}), "warn", "7 of 8 are in use\nnothing keeps the agent from"},
		"an error":                     {examineHost(spec.Status{Problems: []string{"look at containers: EOF"}}, spec.KeyStatus{}), "wrong", "look at containers: EOF\n"},
		"locked":                       {[]spec.Finding{examineSecrets(nil, spec.KeyStatus{Locked: "secrets are locked: no passphrase; `dunnage unlock`"})}, "wrong", "secrets are locked: no passphrase\n"},
		"lost":                         {[]spec.Finding{examineSecrets(nil, spec.KeyStatus{Lost: "the key file is missing; restore it"})}, "wrong", "finds them locked: the key file is missing\n"},
		"rules of a held agent":        {[]spec.Finding{examineRules(spec.RuleSet{Rendered: "a", Held: "the agent holds: other pool; start it with that"})}, "wrong", ", and stay so: the agent holds: other pool\n"},
		"not looked for":               {[]spec.Finding{idle("not looked for", "the agent holds: other pool; start it with that")}, "warn", "not looked for, since the agent holds: other pool\n"},
		"more ports than are followed": {portFindings(nil, obstructedFindings(nil, 3)), "warn", "weren't looked for at 3 more"},
		"no cgroups":                   {hostCgroups(t.TempDir()), "wrong", "no cgroup controller"},
		"a stopped log writer":         {writerFindings([]spec.ReplicaKey{{ID: "a"}, {ID: "b"}}, map[string]spec.LogWriter{"b": {Trouble: spec.WriterStopped, Pid: 77}}), "wrong", "the log writer of b, process 77, is stopped: the replica will block"},
		"a stuck log writer":           {writerFindings([]spec.ReplicaKey{{ID: "a"}, {ID: "b"}}, map[string]spec.LogWriter{"b": {Trouble: spec.WriterStuck, Pid: 77}}), "wrong", "the log writer of b, process 77, doesn't read what the replica prints"},
		"a log writer that fails":      {writerFindings([]spec.ReplicaKey{{ID: "a"}, {ID: "b"}}, map[string]spec.LogWriter{"b": {Trouble: spec.WriterFails, Pid: 77}}), "wrong", "the log writer of b, process 77, writes nothing of what the replica prints"},
	} {
		text := ""
		for _, f := range tc.found {
			text += f.Text + "\n"
			if level([]spec.Finding{f}) != "ok" && f.Next == "" {
				t.Errorf("%s: nobody says what to do: %+v", name, f)
			}
		}
		if got := level(tc.found); got != tc.level || !strings.Contains(text, tc.says) {
			t.Errorf("%s: %s: %q, want %s: %q", name, got, text, tc.level, tc.says)
		}
	}
}

// TestLogFileFindings: what isn't where the log writer writes, though it runs.
func TestLogFileFindings(t *testing.T) {
	for name, tc := range map[string]struct {
		dirs, files []string
		level, says string
	}{
		"all is there":            {[]string{"logs/shop/web"}, []string{"logs/shop/web/r.log"}, "ok", ""},
		"a directory in place":    {[]string{"logs/shop/web/r.log"}, nil, "wrong", "r.log isn't a file"},
		"the file is removed":     {[]string{"logs/shop/web"}, nil, "warn", "is gone"},
		"the service is removed":  {[]string{"logs/shop"}, nil, "warn", "is gone"},
		"all logs are removed":    {nil, nil, "wrong", "logs: no such file or directory"},
		"a file for the service":  {[]string{"logs/shop"}, []string{"logs/shop/web"}, "wrong", "not a directory"},
		"a file for all services": {nil, []string{"logs"}, "wrong", "not a directory"},
	} {
		root := t.TempDir()
		for _, d := range tc.dirs {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range tc.files {
			if err := os.WriteFile(filepath.Join(root, f), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		found := logFileFindings("r", filepath.Join(root, "logs/shop/web/r.log"))
		text := ""
		if len(found) > 0 {
			text = found[0].Text
		}
		if level(found) != tc.level || !strings.Contains(text, tc.says) || text != "" && found[0].Next == "" {
			t.Errorf("%s: %+v, want %s: %q", name, found, tc.level, tc.says)
		}
	}
}

// TestLogFileIsALink: the writer follows none, so what it would say is lost.
func TestLogFileIsALink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r.log")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "other"), nil, 0o600), os.Symlink("other", path)); err != nil {
		t.Fatal(err)
	}
	if found := logFileFindings("r", path); level(found) != "wrong" || !strings.HasPrefix(found[0].Text, path+" isn't a file") || found[0].Next == "" {
		t.Errorf("%+v", found)
	}
}

// TestDroppedFindings: a log that lacks lines isn't called whole.
func TestDroppedFindings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.log")
	w := logwriter.NewWriter(path, 1<<20, 3)
	at := func(hours int) []byte {
		when := time.Date(2026, 11, 22, hours, 0, 0, 0, time.UTC)
		text := "dunnage: 7 lines dropped: the log could not be written: no space left on device"
		return logwriter.AppendLine(nil, logwriter.Line{At: when, Stream: logwriter.Stderr, Text: []byte(text)})
	}
	now := time.Date(2026, 11, 23, 2, 30, 0, 0, time.UTC)
	w.Write(at(1)) // longer ago
	if found := droppedFindings("r", path, now); found != nil {
		t.Errorf("%+v", found)
	}
	w.Write(at(3))
	w.Write(at(4))
	found := droppedFindings("r", path, now)
	if level(found) != "warn" || !strings.HasPrefix(found[0].Text, "14 lines in the log of r were dropped, the last before ") || !strings.HasSuffix(found[0].Text, ": no space left on device") {
		t.Errorf("%+v", found)
	}
	older := logwriter.Rotated(path, 1)
	if err := errors.Join(w.Close(), os.Rename(path, older)); err != nil {
		t.Fatal(err)
	}
	if found := droppedFindings("r", path, now); level(found) != "warn" || !strings.HasPrefix(found[0].Text, "14 lines in the log of r") {
		t.Errorf("after a rotation, %+v", found)
	}
	if err := errors.Join(os.Remove(older), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if found := droppedFindings("r", path, now); found != nil {
		t.Errorf("%+v", found)
	}
}

// TestStrangerFindings: doctor names what a rotation can't use, and a log that lost
// lines by it.
func TestStrangerFindings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.log")
	w := logwriter.NewWriter(path, 4096, 3)
	w.Write(logwriter.AppendLine(nil, logwriter.Line{At: time.Now(), Stream: logwriter.Stderr, Text: []byte("hello on [::]:80")}))
	if found := strangerFindings("r", path); found != nil {
		t.Errorf("%+v", found)
	}
	if err := os.MkdirAll(path+".2.gz/x", 0o700); err != nil {
		t.Fatal(err)
	}
	found := strangerFindings("r", path)
	if level(found) != "warn" || !strings.HasPrefix(found[0].Text, path+".2.gz isn't a file") || found[0].Next == "" {
		t.Errorf("%+v", found)
	}
	for n := range 99 {
		if err := os.MkdirAll(fmt.Sprintf("%s.%d/x", path, n+1), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if found := droppedFindings("r", path, time.Now()); found != nil {
		t.Errorf("of a program's own first line: %+v", found)
	}
	for range 100 {
		w.Write(logwriter.AppendLine(nil, logwriter.Line{At: time.Now(), Stream: logwriter.Stdout, Text: make([]byte, 100)}))
	}
	found = droppedFindings("r", path, time.Now())
	if level(found) != "warn" || !strings.HasPrefix(found[0].Text, "the log of r was emptied") || !strings.Contains(found[0].Text, path+".") {
		t.Errorf("%+v", found)
	}
}

// What a service waits for often begins with the count itself.
func TestNotReady(t *testing.T) {
	for waiting, want := range map[string]string{
		"0 of 2 ready; shop-web-1: starting": "0 of 2 ready: shop-web-1: starting",
		"0 of 2 ready":                       "0 of 2 ready",
		"its image can't be pulled":          "0 of 2 ready: its image can't be pulled",
	} {
		if got := notReady(spec.ServiceStatus{Wanted: 2, Waiting: waiting}); got != want {
			t.Errorf("%q: %q, want %q", waiting, got, want)
		}
	}
}

// A release that takes over is no reason to page anybody as long as clients are
// served as before.
func TestRolloutFindings(t *testing.T) {
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	up := func(n int, generation string, release int) (out []spec.ReplicaStatus) {
		for range n {
			out = append(out, spec.ReplicaStatus{Generation: generation, Release: release, State: spec.StateReady, Routed: true})
		}
		return out
	}
	watched := spec.ReplicaStatus{Generation: "new", Release: 2, State: spec.StateReady}
	rolling := spec.ProjectStatus{Name: "shop", Release: 2, Rolling: true}
	failed, paused, first := rolling, rolling, rolling
	failed.Failed, paused.Paused, first.Release = "web-1 exited with code 1", "on request", 1
	for name, tc := range map[string]struct {
		project spec.ProjectStatus
		before  int
		held    time.Duration
		serve   []spec.ReplicaStatus
		level   string
		says    string
	}{
		"the first batch is watched":   {rolling, 4, 0, append(up(4, "old", 1), watched), "ok", "shop/web: 1 of 4 ready: is watched; release 1 serves meanwhile, with 4 ready"},
		"two batches serve":            {rolling, 4, 0, append(up(2, "old", 1), up(2, "new", 2)...), "ok", "release 1 serves meanwhile, with 2 ready, and release 2 with 2"},
		"it wants fewer":               {rolling, 6, 0, up(4, "old", 1), "ok", "release 1 serves meanwhile, with 4 ready"},
		"it wants more":                {rolling, 2, 0, up(2, "old", 1), "ok", "release 1 serves meanwhile, with 2 ready"},
		"one of the old is gone":       {rolling, 4, 0, up(3, "old", 1), "warn", "release 1 serves meanwhile, with 3 ready"},
		"connections wait":             {rolling, 1, time.Second, nil, "warn", "shop/web: 0 of 4 ready: is watched"},
		"none serves":                  {rolling, 1, 0, nil, "wrong", "shop/web: 0 of 4 ready: is watched"},
		"the first release":            {first, 0, 0, nil, "ok", "shop/web: 0 of 4 ready: is watched"},
		"the first release has failed": {func() spec.ProjectStatus { p := first; p.Failed = "no"; return p }(), 0, 0, nil, "wrong", "release 1 has failed: no"},
		"it has failed":                {failed, 4, 0, up(4, "old", 1), "warn", "release 1 serves meanwhile, with 4 ready; release 2 has failed: web-1 exited"},
		"it has failed, and the old":   {failed, 4, 0, up(3, "old", 1), "wrong", "release 1 serves meanwhile, with 3 ready; release 2 has failed: web-1 exited"},
		"paused":                       {paused, 4, 0, up(4, "old", 1), "warn", "stands still: on request; web: release 1 serves meanwhile, with 4 ready"},
		"paused, and the old":          {paused, 4, 0, up(1, "old", 1), "wrong", "stands still: on request; web: release 1 serves meanwhile, with 1 ready"},
		"on the way back":              {spec.ProjectStatus{Name: "shop", Release: 1}, 0, 0, append(up(2, "new", 1), up(2, "old", 2)...), "ok", "release 1 serves meanwhile, with 2 ready, and release 2 with 2"},
		"no rollout":                   {spec.ProjectStatus{Name: "shop", Release: 1}, 0, 0, up(3, "new", 1), "wrong", "shop/web: 3 of 4 ready: is watched"},
	} {
		web := spec.ServiceStatus{Name: "web", Generation: "new", Wanted: 4, Before: tc.before, Waiting: "is watched", Replicas: tc.serve}
		for _, r := range tc.serve {
			if r.Generation == "new" {
				web.Ready++
			}
		}
		if tc.held > 0 {
			web.HeldUntil = at.Add(tc.held)
		}
		tc.project.Services = []spec.ServiceStatus{web}
		found := examineServices(spec.Status{At: at, Projects: []spec.ProjectStatus{tc.project}})
		if level(found) != tc.level || !strings.Contains(found[0].Text, tc.says) {
			t.Errorf("%s: %+v, want %s: %s", name, found, tc.level, tc.says)
		}
		if tc.before == 0 && strings.Contains(found[0].Next, "goes back") {
			t.Errorf("%s: there is no release to go back to: %s", name, found[0].Next)
		}
	}
}

func TestCgroupFindings(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	for _, c := range []string{"cpu", "memory", "pids"} {
		if err := os.Mkdir(filepath.Join(v1, c), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if found := hostCgroups(v1); level(found) != "ok" || !strings.HasPrefix(found[0].Text, "cgroup v1") {
		t.Errorf("%+v", found)
	}
	if err := os.WriteFile(filepath.Join(v2, "cgroup.controllers"), []byte("cpuset cpu io pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if found := hostCgroups(v2); level(found) != "wrong" || !strings.Contains(found[0].Text, "cgroup v2 lacks memory") || !strings.Contains(found[0].Next, "cgroup_enable=memory") {
		t.Errorf("%+v", found)
	}
}

// Limits hold in the groups where replicas are, whatever those of the agent have.
func TestReplicaCgroups(t *testing.T) {
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	const (
		own1   = "5:pids:/dunnage/web-1\n4:memory:/dunnage/web-1\n2:cpu,cpuacct:/dunnage/web-1\n1:name=systemd:/\n"
		all    = "cpuset cpu io memory pids\n"
		enable = "`echo +memory | tee ROOT/cgroup.subtree_control ROOT/dunnage/cgroup.subtree_control`"
	)
	for name, tc := range map[string]struct {
		tree              map[string]string // files of cgroup v2; none = v1
		process           string            // its groups
		level, says, next string
	}{
		"v1":                       {nil, own1, "ok", "cgroup v1, with cpu, memory, pids for each of 1 replica", ""},
		"not where containerd is":  {nil, strings.Replace(own1, "memory:/dunnage/web-1", "memory:/", 1), "wrong", "web-1 don't hold: with others it is in the cgroup / of memory", "whether containerd sees"},
		"not in the kernel":        {nil, strings.Replace(own1, "4:memory:/dunnage/web-1\n", "", 1), "wrong", "cgroup v1 lacks memory", "cgroup_enable=memory"},
		"v2":                       {map[string]string{"dunnage/web-1/cgroup.controllers": all}, "0::/dunnage/web-1\n", "ok", "cgroup v2, with cpu, memory, pids for each", ""},
		"not handed down":          {map[string]string{"dunnage/web-1/cgroup.controllers": "cpu pids\n", "cgroup.subtree_control": "cpu pids\n"}, "0::/dunnage/web-1\n", "wrong", "the cgroups in /dunnage lack memory", enable},
		"not in the kernel of v2":  {map[string]string{"cgroup.controllers": "cpu pids\n", "dunnage/web-1/cgroup.controllers": "cpu pids\n"}, "0::/dunnage/web-1\n", "wrong", "cgroup v2 lacks memory", "cgroup_enable=memory"},
		"moved":                    {map[string]string{}, "0::/\n", "wrong", "with others it is in the cgroup /", "who has moved it"},
		"an agent in a container":  {map[string]string{}, "0::/../dunnage/web-1\n", "wrong", "outside of what the agent sees", "the host's cgroup namespace"},
		"no replica runs any more": {nil, "", "ok", "", ""},
	} {
		proc, root := t.TempDir(), t.TempDir()
		if tc.process != "" {
			write(filepath.Join(proc, "7", "cgroup"), tc.process)
		}
		if tc.tree != nil {
			write(filepath.Join(root, "cgroup.controllers"), all)
		}
		for path, text := range tc.tree {
			write(filepath.Join(root, path), text)
		}
		found := replicaCgroups(proc, root, []spec.ReplicaStatus{{Replica: "web-1", Pid: 7}, {Replica: "web-2", Pid: 8}})
		text, next := "", ""
		for _, f := range found {
			text, next = text+f.Text, next+f.Next
		}
		if level(found) != tc.level || !strings.Contains(text, tc.says) || !strings.Contains(strings.ReplaceAll(next, root, "ROOT"), tc.next) || (tc.level == "wrong") != (next != "") {
			t.Errorf("%s: %+v", name, found)
		}
		if tc.process == "" && found != nil {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

func TestRightsFindings(t *testing.T) {
	dir := t.TempDir()
	o := agentOptions{stateDir: filepath.Join(dir, "s"), runDir: filepath.Join(dir, "r"), socket: filepath.Join(dir, "r", "agent.sock"), keySource: "file:" + filepath.Join(dir, "s", "key")}
	for _, d := range []string{o.stateDir, o.runDir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]os.FileMode{filepath.Join(o.stateDir, "dunnage.db"): 0o600, filepath.Join(o.stateDir, "key"): 0o600, o.socket: 0o660}
	for path, mode := range files {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	wrongs := func() (texts []string) {
		for _, f := range examineRights(o) {
			if !f.OK && !strings.Contains(f.Text, "belongs to uid") { // of whoever runs the test
				texts = append(texts, f.Text+" "+f.Next)
			}
		}
		return texts
	}
	if w := wrongs(); len(w) != 0 {
		t.Errorf("as the agent makes them: %q", w)
	}
	for path := range files {
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	w := strings.Join(wrongs(), "\n")
	for _, want := range []string{"others can read the store", "others can read the key", "everybody can use the agent", "`chmod 0600 "} {
		if !strings.Contains(w, want) {
			t.Errorf("%q lacks %q", w, want)
		}
	}
}

func TestOthersFindings(t *testing.T) {
	root := t.TempDir()
	if found := examineOthers(root); len(found) != 1 || !strings.HasPrefix(found[0].Text, "neither") {
		t.Errorf("%+v", found)
	}
	for path, text := range map[string]string{"etc/ufw/ufw.conf": "ENABLED=yes\n", "run/docker.pid": "1", "run/firewalld.pid": "1"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found := examineOthers(root)
	if len(found) != 3 || level(found) != "ok" {
		t.Errorf("%+v", found)
	}
	if err := os.WriteFile(filepath.Join(root, "net.ipv4.ip_forward"), []byte("0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if found := withLinks(fine("the kernel forwards packets"), []string{"net.ipv4.conf.eth0.forwarding"}); len(found) != 1 || level(found) != "wrong" || !strings.Contains(found[0].Next, "`sysctl -w net.ipv4.conf.eth0.forwarding=1`") {
		t.Errorf("%+v", found)
	}
	if found := sysctlFindings(root, []string{"net.ipv4.ip_forward"}); level(found) != "wrong" || !strings.Contains(found[0].Text, `is "0"`) {
		t.Errorf("%+v", found)
	}
}
