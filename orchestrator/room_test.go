package orchestrator

import (
	"context"
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
