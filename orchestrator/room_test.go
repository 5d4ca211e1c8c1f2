package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// tight is a world with a service, a disk of 1 GiB of which so much is free, and
// an image of 100 MiB that takes 400 MiB on disk.
func tight(t *testing.T, free int64) (*scenario, spec.Project) {
	t.Helper()
	s := newScenario(1, world.Truth)
	t.Cleanup(func() { s.stop() })
	p := valid("shop", "fast")
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	if done := s.loop.collects.done; done != nil { // the loop collects by itself, but not in these tests
		<-done
	}
	s.loop.collects = collecting{due: s.w.Now().Add(time.Hour), look: s.w.Now().Add(time.Hour), clean: true}
	s.w.Disks = []spec.Filesystem{{Dir: "/state", Size: 1 << 30, Free: free + 50*mib, Available: free, Inodes: 100000, FreeInodes: 90000}}
	s.w.Blobs = map[string][]spec.MissingBlob{"slow": {{Digest: "a", Size: 60 * mib, Unpacked: 180 * mib}, {Digest: "b", Size: 40 * mib, Unpacked: 120 * mib}}}
	p.Services = slices.Clone(p.Services)
	p.Services[0].Container.Image, p.Services[0].Pull = "slow", spec.PullAlways
	return s, p
}

// begin begins a deploy, and lets no time pass: the loop collects by itself.
func begin(s *scenario, p spec.Project) (*operation, error) {
	op := s.loop.ops.begin(p.Name, "deploy", "", spec.OperationPulling)
	var err error
	s.answer(func(ctx context.Context) { err = s.loop.deploy(ctx, op, spec.DeployRequest{Project: p}) })
	if err != nil {
		s.loop.end(op, spec.OperationFailed, plain(err), nil)
	}
	return op, err
}

// TestDeployThatDoesNotFit is refused with the numbers, and changes nothing.
func TestDeployThatDoesNotFit(t *testing.T) {
	s, p := tight(t, 300*mib)
	s.w.Stored = []spec.DiskItem{{Kind: spec.DiskLayers, Name: "old", DiskUse: spec.DiskUse{Bytes: 50 * mib, Inodes: 10}}}
	before := status(t, s, "web").Replicas[0]
	for _, want := range []string{
		"its images need about 400.0 MiB and 19202 inodes (100.0 MiB to download, the rest unpacked)",
		"the file system of /state has 300.0 MiB of 1.0 GiB free",
		"`dunnage gc` would free 50.0 MiB and 10 inodes, which isn't enough",
		"`dunnage df` shows what takes the room",
	} {
		if notes := preview(t, s, p).Notes; !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, want) }) {
			t.Errorf("the plan doesn't say %q: %q", want, notes)
		}
		if _, err := begin(s, p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the deploy doesn't say %q: %v", want, err)
		}
	}
	after := status(t, s, "web")
	if len(s.w.Stored) != 1 || len(after.Replicas) != 1 || after.Replicas[0].Replica != before.Replica || after.Replicas[0].Restarts != 0 {
		t.Errorf("something has changed: %+v, %+v", s.w.Stored, after)
	}
	if h, err := s.loop.Releases(t.Context(), "shop"); err != nil || len(h) != 1 {
		t.Errorf("%v %+v", err, h)
	}
}

// TestDeployCollectsFirst: where collecting makes room, the deploy does, and says so.
func TestDeployCollectsFirst(t *testing.T) {
	for name, change := range map[string]func(*scenario){
		"on disk": func(*scenario) {},
		"of the budget": func(s *scenario) {
			s.w.Disks[0].Available = 900 * mib
			s.loop.cfg.Budget = 450 * mib
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := tight(t, 300*mib)
			s.w.Stored = []spec.DiskItem{{Kind: spec.DiskLayers, Name: "old", DiskUse: spec.DiskUse{Bytes: 200 * mib, Inodes: 10}}}
			s.w.Collected = func(use spec.DiskUse) { s.w.Disks[0].Available += use.Bytes }
			change(s)
			if notes := preview(t, s, p).Notes; !slices.ContainsFunc(notes, func(n string) bool {
				return strings.Contains(n, "the deploy collects first, which frees 200.0 MiB (`dunnage gc --dry-run` lists it)")
			}) || len(s.w.Stored) != 1 {
				t.Errorf("%q, %+v", notes, s.w.Stored)
			}
			op, err := begin(s, p)
			if err != nil || len(s.w.Stored) != 0 {
				t.Fatalf("%v %+v", err, s.w.Stored)
			}
			if now := pass(t, s, op.ID, time.Minute); now.State != spec.OperationDone || !slices.Contains(now.Warnings, "collected 200.0 MiB of what nobody needs, to make room") {
				t.Errorf("%s %q %q", now.State, now.Cause, now.Warnings)
			}
		})
	}
}

// loadRoom asks for room for an archive.
func loadRoom(s *scenario, layers []spec.MissingBlob) (note string, err error) {
	s.answer(func(ctx context.Context) { note, err = s.loop.LoadRoom(ctx, layers) })
	return note, err
}

// TestLoadThatDoesNotFit: a load is refused with the numbers, by the disk and by the
// budget, and collects where that is enough; what is stored already doesn't count.
func TestLoadThatDoesNotFit(t *testing.T) {
	const disk, budget = "the file system of /state has 300.0 MiB of 1.0 GiB free", "of the budget of 450.0 MiB are in use"
	for name, tc := range map[string]struct {
		budget int64
		old    int64 // bytes that nobody needs
		stored bool
		want   string // in the error
		note   string
	}{
		"on disk":                    {0, 50 * mib, false, disk, ""},
		"of the budget":              {450 * mib, 60 * mib, false, budget, ""},
		"on disk, collected":         {0, 200 * mib, false, "", "collected 200.0 MiB of what nobody needs, to make room"},
		"of the budget, collected":   {450 * mib, 200 * mib, false, "", "collected 200.0 MiB of what nobody needs, to make room"},
		"stored, on a full disk":     {0, 0, true, "", ""},
		"stored, beyond the budget":  {450 * mib, 0, true, "", ""},
		"it fits, without a budget":  {0, 0, false, "", ""},
		"it fits, and in the budget": {450 * mib, 0, false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := tight(t, 300*mib)
			layers := s.w.Blobs["slow"]
			s.w.Collected = func(use spec.DiskUse) { s.w.Disks[0].Available += use.Bytes }
			if tc.budget > 0 || tc.want+tc.note == "" {
				s.w.Disks[0].Available = 900 * mib
			}
			if s.loop.cfg.Budget = tc.budget; tc.old > 0 {
				s.w.Stored = []spec.DiskItem{{Kind: spec.DiskLayers, Name: "old", DiskUse: spec.DiskUse{Bytes: tc.old, Inodes: 10}}}
			}
			if tc.want != "" && tc.budget > 0 {
				s.w.Stored[0].Holders = []string{"release"}
			}
			if tc.stored {
				s.w.Disks[0].Available = 0
				for _, l := range layers {
					s.w.Stored = append(s.w.Stored, spec.DiskItem{Kind: spec.DiskLayers, Name: l.Digest, Holders: []string{"release"}, DiskUse: spec.DiskUse{Bytes: 300 * mib}})
				}
			}
			before := len(s.w.Stored)
			note, err := loadRoom(s, layers)
			if note != tc.note || (err == nil) != (tc.want == "") || tc.note == "" && len(s.w.Stored) != before {
				t.Fatalf("%q, %v, %+v", note, err, s.w.Stored)
			}
			if err == nil {
				return
			}
			for _, want := range []string{
				"the archive doesn't fit: its new layers need about 400.0 MiB and 19202 inodes (100.0 MiB as they are in the archive, the rest unpacked), and ",
				tc.want, "`dunnage gc` would free ", "`dunnage df` shows what takes the room",
			} {
				if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), want) {
					t.Errorf("it doesn't say %q: %v", want, err)
				}
			}
		})
	}
}

// TestWhatMakesRoom: a host that is short of room is told what would help there, and
// nothing that it hasn't got.
func TestWhatMakesRoom(t *testing.T) {
	const releases, forget, du, budget = "fewer disk.keep_releases", "`dunnage down --forget` of what isn't needed any more", "`du -x`", "disk.budget in the agent's file is the ceiling: raise it"
	const down = "(down already: web)"
	for name, tc := range map[string]struct {
		deploys int
		budget  int64
		want    []string
	}{
		"empty, the disk":           {0, 0, []string{du}},
		"empty, the budget":         {0, mib, []string{budget}},
		"one release, the disk":     {1, 0, []string{forget, du}},
		"two releases, the budget":  {2, mib, []string{releases, forget, budget}},
		"two, down again, the disk": {-2, 0, []string{releases, forget, down, du}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			s.quiet = true
			s.redeploys(max(tc.deploys, -tc.deploys))
			if tc.deploys < 0 {
				rec, _ := s.loop.state.project("web")
				rec.Down = true
				if err := s.loop.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}}); err != nil {
					t.Fatal(err)
				}
			}
			s.collections(t)
			s.loop.cfg.Budget = tc.budget
			available := int64(1)
			if tc.budget > 0 {
				available = 900 * mib
			}
			s.w.Disks = []spec.Filesystem{{Dir: "/state", Size: 1 << 30, Available: available, Inodes: 100000, FreeInodes: 90000}}
			s.w.Stored = []spec.DiskItem{{Kind: spec.DiskLayers, Name: "a", Holders: []string{"load in progress"}, DiskUse: spec.DiskUse{Bytes: 2 * mib}}}
			_, refused := s.loop.LoadRoom(t.Context(), []spec.MissingBlob{{Digest: "b", Size: 60 * mib, Unpacked: 180 * mib}})
			if refused == nil {
				t.Fatal("the load isn't refused")
			}
			if err := s.loop.keepInBudget(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			what, next := spec.SplitProblem(s.loop.tight.Load().text())
			if !strings.HasSuffix(what, ", and nothing is left to collect") {
				t.Errorf("the problem is %q", what)
			}
			for _, hint := range []string{releases, forget, down, du, budget} {
				for _, text := range []string{next, refused.Error()} {
					if strings.Contains(text, hint) != slices.Contains(tc.want, hint) {
						t.Errorf("%q should have of the hints %q", text, tc.want)
					}
				}
			}
		})
	}
}

// TestDeployWithoutNews: on a disk that is full but for root's reserve, a deploy
// that brings no image is refused too, and goes on when there is room.
func TestDeployWithoutNews(t *testing.T) {
	s, p := tight(t, 0)
	p.Services[0].Container.Image, p.Services[0].Pull = "fast", spec.PullMissing
	p.Services[0].Container.Environment = []string{"V=new"}
	op := ask(t, s, p)
	if want := "it needs 16.0 MiB and 256 inodes to work with, and the file system of /state has 0 B of 1.0 GiB free; `dunnage gc` would free nothing"; op.State != spec.OperationFailed || !strings.Contains(op.Cause, want) {
		t.Errorf("%s %q", op.State, op.Cause)
	}
	s.w.Disks[0].Available, s.w.Disks[0].FreeInodes = 100*mib, 12
	if op := ask(t, s, p); op.State != spec.OperationFailed || !strings.Contains(op.Cause, "has 12 of 100000 inodes free") {
		t.Errorf("%s %q", op.State, op.Cause)
	}
	s.w.Disks[0].FreeInodes = 90000
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Errorf("%s %q", op.State, op.Cause)
	}
	s.live(time.Second, time.Second)
}

// unnoted are images that came a moment ago, and that can't be noted as recent on
// a full disk.
type unnoted struct{ Images }

func (unnoted) Resolve(context.Context, string) (spec.PinnedImage, error) {
	return spec.PinnedImage{}, fmt.Errorf("note which images are recent: %w", syscall.ENOSPC)
}

// TestDeployOfARecentImage: a full disk is told of in numbers, even where the
// first to notice it is who looks for the image.
func TestDeployOfARecentImage(t *testing.T) {
	s, p := tight(t, 0)
	s.loop.cfg.Images = unnoted{s.loop.cfg.Images}
	p.Services[0].Container.Image, p.Services[0].Pull = "fast", spec.PullMissing
	if _, err := begin(s, p); err == nil || !strings.Contains(err.Error(), "it needs 16.0 MiB and 256 inodes to work with, and the file system of /state has 0 B of 1.0 GiB free") {
		t.Errorf("the deploy says %v", err)
	}
}
