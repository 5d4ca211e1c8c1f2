package orchestrator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// releaseNumbers are the kept releases of a project.
func (s *scenario) releaseNumbers(project string) (out []int) {
	for _, r := range s.loop.state.history(project) {
		out = append(out, r.Number)
	}
	return out
}

// redeploys makes n more releases.
func (s *scenario) redeploys(n int) {
	for range n {
		p := one("web", "fast")
		p.Services[0].Container.Command = []string{fmt.Sprint(s.loop.state.projects["web"].Next)}
		s.deploy(p)
		s.live(30*time.Second, time.Second)
	}
}

// TestKeepFewerReleases: a lower number holds from the agent's start on, for what
// the releases hold too; the desired one and the good one stay whatever it is.
func TestKeepFewerReleases(t *testing.T) {
	s := newScenario(1, world.Truth)
	s.quiet = true
	k := &keeper{Images: s.loop.cfg.Images}
	s.loop.cfg.Images = k
	s.redeploys(6)
	if got := s.releaseNumbers("web"); len(got) != 6 || len(k.names) != 6 {
		t.Fatalf("kept %v, retained %q", got, k.names)
	}
	s.start(0)
	s.loop.cfg.Images, s.loop.cfg.KeepReleases = k, 2
	s.live(5*time.Second, time.Second)
	if got := s.releaseNumbers("web"); !slices.Equal(got, []int{5, 6}) {
		t.Errorf("kept %v", got)
	}
	if want := []string{"web-release-5", "web-release-6"}; !slices.Equal(k.names, want) {
		t.Errorf("retained %q, want %q", k.names, want)
	}
	if got := s.loop.state.projects["web"].Ran; !slices.Equal(got, []int{5, 6}) {
		t.Errorf("rollback may go to %v", got)
	}
}

// TestKeepsTheWaysBack: whatever has failed or been scaled since, what `dunnage
// rollback` goes to stays, and the last release that ran with another image.
func TestKeepsTheWaysBack(t *testing.T) {
	for _, tc := range []struct {
		name    string
		keep    int
		steps   string
		kept    []int
		back    int // where a rollback goes
		restart int // keep_releases of the next agent; 0 = there is none
	}{
		{"scaled", 3, "fast slow scale scale scale scale scale", []int{1, 5, 6, 7}, 6, 0},
		{"scaled and failed", 3, "fast slow scale crashing scale crashing crashing crashing", []int{1, 3, 5, 6, 7, 8}, 3, 0},
		{"only scaled", 2, "fast scale scale scale", []int{2, 3, 4}, 3, 0},
		{"one failed", 2, "fast crashing slow crashing", []int{1, 3, 4}, 1, 0},
		{"two failed", 2, "fast crashing slow crashing crashing", []int{1, 3, 4, 5}, 1, 0},
		{"another service", 1, "fast slow more scale scale", []int{1, 3, 4, 5}, 4, 0},
		{"failed before the start", 10, "fast slow crashing", []int{1, 2, 3}, 1, 2},
		{"scaled before the start", 10, "fast slow scale scale scale crashing", []int{1, 4, 5, 6}, 4, 1},
		{"without any that failed", 10, "fast slow fast slow", []int{3, 4}, 3, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			s.loop.cfg.KeepReleases = tc.keep
			p := one("shop", "")
			for _, step := range strings.Fields(tc.steps) {
				switch step {
				case "scale":
					p.Services[0].Replicas++ // a release as any other
				case "more":
					more := p.Services[0]
					more.Name = "worker"
					p.Services = append(slices.Clone(p.Services), more)
				default:
					p.Services[0].Container.Image = step
				}
				next := p
				next.Services = slices.Clone(p.Services)
				ask(t, s, next)
				if step == "crashing" {
					p.Services[0].Container.Image = s.loop.present("shop").Project.Services[0].Container.Image
				}
			}
			if tc.restart > 0 {
				s.start(0)
				s.loop.cfg.KeepReleases = tc.restart
				s.live(5*time.Second, time.Second)
			}
			if got := s.releaseNumbers("shop"); !slices.Equal(got, tc.kept) {
				t.Errorf("kept %v, want %v", got, tc.kept)
			}
			if _, r, err := s.loop.target("shop", 0); err != nil || r.Number != tc.back {
				t.Errorf("a rollback goes to release %d, %v, want %d", r.Number, err, tc.back)
			}
		})
	}
}

// collections waits until nothing collects, and returns what has been asked for.
func (s *scenario) collections(t *testing.T) []spec.CollectRequest {
	t.Helper()
	if done := s.loop.collects.done; done != nil {
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("a collection doesn't end")
		}
	}
	out := s.w.Collections
	s.w.Collections = nil
	return out
}

// TestCollectsSometimes: after releases have left the kept ones, and now and
// then; over the budget with less patience.
func TestCollectsSometimes(t *testing.T) {
	s := newScenario(1, world.Truth)
	s.quiet = true
	s.loop.cfg.KeepReleases = 2
	s.redeploys(3)
	s.live(collectEvery+overEvery, time.Second)
	if got := s.collections(t); len(got) == 0 || len(got) > 3 || got[0].Grace != spec.ImageGrace || got[0].Logs != spec.OldLogs || got[0].Replica("nobody") {
		t.Errorf("at rest: %+v", got)
	}
	s.redeploys(1)
	s.live(2*collectAfter, time.Second)
	if got := s.collections(t); len(got) != 1 {
		t.Errorf("after a release has gone: %+v", got)
	}

	s.loop.cfg.Budget = 100 << 20
	s.w.Stored = []spec.DiskItem{
		{Kind: spec.DiskLayers, Name: "app:3", Holders: []string{"web-release-3"}, DiskUse: spec.DiskUse{Bytes: 90 << 20}},
		{Kind: spec.DiskLayers, Name: "app:1", DiskUse: spec.DiskUse{Bytes: 20 << 20}},
		{Kind: spec.DiskVolumes, Name: "web_data", DiskUse: spec.DiskUse{Bytes: 1 << 40}},
	}
	s.live(2*overEvery, time.Second)
	got := s.collections(t)
	if !slices.ContainsFunc(got, func(r spec.CollectRequest) bool {
		return r.Grace == spec.ImageGraceShort && r.Logs == spec.OldLogsShort
	}) {
		t.Errorf("over the budget: %+v", got)
	}
	if len(s.w.Stored) != 2 || s.problems() != 0 {
		t.Errorf("left: %+v; told of %d problems", s.w.Stored, s.problems())
	}

	// What releases need isn't collected: it is told of, once.
	s.w.Stored[0].Bytes = 120 << 20
	s.live(5*overEvery, time.Second)
	s.collections(t)
	if s.problems() != 1 {
		t.Errorf("told of %d problems", s.problems())
	}
	r, err := s.loop.DiskReport(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i := r.Items[0]; i.Project != "web" || !slices.Equal(i.Releases, []int{3}) || !slices.Equal(i.Holders, []string{"web release 3"}) {
		t.Errorf("item: %+v", i)
	}
	if r.Counted.Bytes < 120<<20 || r.Counted.Bytes > 121<<20 || r.Budget != 100<<20 {
		t.Errorf("report: %+v", r)
	}
}

// TestCollectsInTheMidstOfChanges: those that come one after the other would else
// fill the disk for minutes.
func TestCollectsInTheMidstOfChanges(t *testing.T) {
	s := newScenario(1, world.Truth)
	s.quiet = true
	s.loop.cfg.KeepReleases = 2
	s.redeploys(3)
	s.live(collectEvery+overEvery, time.Second)
	s.collections(t)
	s.loop.cfg.Budget = 100 << 20
	s.w.Stored = []spec.DiskItem{{Kind: spec.DiskLayers, Name: "app:1", DiskUse: spec.DiskUse{Bytes: 200 << 20}}}
	s.loop.collects.look = s.w.Now().Add(time.Hour)
	s.loop.ops.begin("other", "deploy", "", spec.OperationPulling) // without end
	s.redeploys(1)
	s.live(2*collectAfter, time.Second)
	if s.collections(t); len(s.w.Stored) != 0 {
		t.Errorf("left: %+v", s.w.Stored)
	}
}

// problems counts the events that tell of the disk.
func (s *scenario) problems() (n int) {
	for _, e := range first(s.loop.events.after(0)) {
		if e.Kind == spec.EventProblem {
			n++
		}
	}
	return n
}

// TestShortWhileImagesWait: nobody is told that nothing is left to collect while
// something is.
func TestShortWhileImagesWait(t *testing.T) {
	for _, waiting := range [][]spec.WaitingImage{nil, {{Ref: "old:1", Until: time.Now()}}} {
		s := newScenario(1, world.Truth)
		s.w.Disks, s.w.Waiting = []spec.Filesystem{{Dir: "/data", Size: 100, Available: 1}}, waiting
		if err := s.loop.keepInBudget(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		var text string
		for _, e := range first(s.loop.events.after(0)) {
			if e.Kind == spec.EventProblem {
				text += e.Message
			}
		}
		if !strings.Contains(text, "/data") || strings.Contains(text, "nothing is left to collect") != (waiting == nil) || strings.Contains(text, "old:1 until ") != (waiting != nil) {
			t.Errorf("while %v waits it tells %q", waiting, text)
		}
		s.stop()
	}
}

// TestShortIsOver: a disk that has room again is told of within seconds, and meanwhile
// its present figures are shown.
func TestShortIsOver(t *testing.T) {
	s := newScenario(1, world.Truth)
	s.quiet = true
	defer func() { s.stop() }()
	left := func(n int64) { s.w.Disks = []spec.Filesystem{{Dir: "/data", Size: 100, Available: n}} }
	glance := func() (problems string) {
		for range 2 { // the loop looks again when it has ended
			s.live(glanceEvery, time.Second)
			s.collections(t)
		}
		s.live(time.Second, time.Second)
		s.collections(t)
		return strings.Join(s.loop.status.Load().Problems, "\n")
	}
	left(1)
	s.live(2*overEvery, time.Second)
	s.collections(t)
	var since uint64
	if all := told(s, spec.EventProblem, &since); len(all) != 1 || !strings.HasPrefix(all[0].Message, "disk: 1 B of 100 B are left on the file system of /data") {
		t.Fatalf("told %+v", all)
	}
	s.loop.collects.look, s.loop.collects.due = s.w.Now().Add(time.Hour), s.w.Now().Add(time.Hour)
	left(2)
	if got := glance(); !strings.HasPrefix(got, "disk: 2 B of 100 B are left") {
		t.Errorf("shown %q", got)
	}
	left(50)
	if got := glance(); got != "" {
		t.Errorf("still shown %q", got)
	}
	if all := told(s, spec.EventRepaired, &since); len(all) != 1 || all[0].Message != "no longer: disk: 2 B of 100 B are left on the file system of /data" {
		t.Errorf("told %+v", all)
	}
}

// TestCollectAsTheDiskIs: what gc says goes, and when, is what the agent does in the
// state that the disk is in.
func TestCollectAsTheDiskIs(t *testing.T) {
	until := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for short, free := range map[bool]int64{false: 50, true: 1} {
		s := newScenario(1, world.Truth)
		s.w.Disks, s.w.Waiting = []spec.Filesystem{{Dir: "/data", Size: 100, Available: free}}, []spec.WaitingImage{{Ref: "old:1", Until: until}}
		want := until
		if short {
			want = until.Add(spec.ImageGraceShort - spec.ImageGrace)
		}
		for _, rehearse := range []bool{true, false} {
			c, err := s.loop.Collect(t.Context(), rehearse, false)
			if err != nil || len(c.Waiting) != 1 || !c.Waiting[0].Until.Equal(want) || strings.Contains(c.Short, "/data") != short {
				t.Errorf("short: %t, a rehearsal: %t: %+v, %v, want %s", short, rehearse, c, err, want)
			}
		}
		if got := s.w.Collections; len(got) != 1 || got[0].Grace != spec.UsualCollection(short).Grace || got[0].Logs != spec.UsualCollection(short).Logs {
			t.Errorf("short: %t: %+v", short, got)
		}
		if c, err := s.loop.Collect(t.Context(), true, true); err != nil || c.Short != "" || !c.Waiting[0].Until.Equal(until.Add(collectAllGrace-spec.ImageGrace)) {
			t.Errorf("short: %t, all: %+v, %v", short, c, err)
		}
		s.stop()
	}
}

// TestCollectedIsTold: what goes is an event, with its size, the images' names and why.
func TestCollectedIsTold(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	use := spec.DiskUse{Bytes: 5 << 20, Inodes: 2}
	stored := []spec.DiskItem{
		{Kind: spec.DiskContent, Name: "old:1", DiskUse: use}, {Kind: spec.DiskContent, Name: "of no image", DiskUse: use},
		{Kind: spec.DiskLayers, Name: "old:1", DiskUse: use}, {Kind: spec.DiskLayers, Name: "older:1", DiskUse: use},
		{Kind: spec.DiskLogs, Name: "shop-web-1", DiskUse: use}, {Kind: spec.DiskVolumes, Name: "shop_data", DiskUse: use},
	}
	const what = ": images old:1, older:1; layers of no image; logs of shop-web-1"
	var since uint64
	tells := func(want string, collect func() error) {
		t.Helper()
		s.w.Stored = slices.Clone(stored)
		if err := collect(); err != nil {
			t.Fatal(err)
		}
		if all := told(s, spec.EventCollected, &since); len(all) != 1 || all[0].Message != want {
			t.Errorf("told %+v, want %q", all, want)
		}
		if err := collect(); err != nil {
			t.Fatal(err)
		}
		if all := told(s, spec.EventCollected, &since); len(all) > 0 {
			t.Errorf("of nothing it tells %+v", all)
		}
	}
	tells("25.0 MiB and 10 inodes that nobody needed"+what, func() error { return s.loop.keepInBudget(t.Context(), true) })
	s.loop.cfg.Budget = 1 << 20
	tells("25.0 MiB and 10 inodes that nobody needed, because 25.0 MiB are in use of a budget of 1.0 MiB"+what, func() error { return s.loop.keepInBudget(t.Context(), false) })
	tells("25.0 MiB and 10 inodes that nobody needed, as `dunnage gc` asked"+what, func() error {
		_, err := s.loop.Collect(t.Context(), false, false)
		return err
	})
	if _, err := s.loop.Collect(t.Context(), true, false); err != nil || len(told(s, spec.EventCollected, &since)) > 0 {
		t.Errorf("of a rehearsal it tells, %v", err)
	}
}

// TestWhoseImage: a pull that has just ended, or an operation at work, makes an
// image of one project no image of several.
func TestWhoseImage(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	for _, name := range []string{"shop", "other"} {
		if op := ask(t, s, valid(name, "fast")); op.State != spec.OperationDone {
			t.Fatalf("%+v", op)
		}
	}
	ours, theirs := s.loop.ops.begin("shop", "deploy", "", spec.OperationPulling), s.loop.ops.begin("other", "deploy", "", spec.OperationPulling)
	for _, c := range []struct {
		holder, project string
	}{
		{"pulled at 15:04", "shop"}, {"may be deployed until 2 January 15:04", "shop"}, {"lease of somebody", "shop"},
		{holdName(ours.ID), "shop"}, {holdName("of an agent before"), "shop"},
		{holdName(theirs.ID), ""}, {retainName("other", 1), ""},
	} {
		items := []spec.DiskItem{{Kind: spec.DiskLayers, Name: "web:1", Holders: []string{retainName("shop", 1), c.holder}}}
		s.loop.describe(items)
		if got := items[0]; got.Project != c.project || (len(got.Releases) == 1) != (c.project != "") {
			t.Errorf("with %q: of %q, releases %v, want %q", c.holder, got.Project, got.Releases, c.project)
		}
	}
}

// TestCollectsNothingWhileHeld: an agent that may have got the wrong store knows
// nobody's releases.
func TestCollectsNothingWhileHeld(t *testing.T) {
	s := newScenario(1, world.Truth)
	s.quiet = true
	why := "another store"
	s.loop.held.Store(&why)
	s.w.Stored = []spec.DiskItem{{Kind: spec.DiskLayers, Name: "app:1"}}
	if _, err := s.loop.collect(t.Context(), s.loop.collectRequest(false), ""); err != nil {
		t.Fatal(err)
	}
	if len(s.w.Stored) != 1 {
		t.Error("it collected")
	}
}

func first[T, U any](t T, _ U) T { return t }

// TestBudgetNearlyUsed: from 90 % on somebody is told, before the next load is refused,
// and no longer once there is room again or it is a problem.
func TestBudgetNearlyUsed(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.quiet = true
	s.w.Disks = []spec.Filesystem{{Dir: "/data", Size: 1 << 40, Available: 1 << 39}}
	s.loop.cfg.Budget = 100 * mib
	for _, tc := range []struct {
		used           int64
		warns, problem bool
	}{{89 * mib, false, false}, {90 * mib, true, false}, {100 * mib, true, false}, {101 * mib, false, true}, {95 * mib, true, false}, {10 * mib, false, false}} {
		s.w.Stored = []spec.DiskItem{{Kind: spec.DiskLayers, Name: "a", Holders: []string{"shop release 1"}, DiskUse: spec.DiskUse{Bytes: tc.used}}}
		if err := s.loop.keepInBudget(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		s.loop.Step(t.Context())
		st, err := s.loop.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if (len(st.Warnings) == 1) != tc.warns || (len(st.Problems) == 1) != tc.problem {
			t.Errorf("%d bytes: warnings %q, problems %q", tc.used, st.Warnings, st.Problems)
		}
		if tc.used == 95*mib && !strings.HasPrefix(st.Warnings[0], "disk: 95.0 MiB are in use of a budget of 100.0 MiB (95 %): a deploy or a load that doesn't fit into the rest is refused; `dunnage df`") {
			t.Errorf("%q", st.Warnings)
		}
	}
}
