package engine

import (
	"context"
	"errors"
	"fmt"
	"github.com/containerd/containerd/v2/core/leases"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// sized is an image on the common base with a layer of its own, that doesn't
// compress well.
func sized(t *testing.T, name string, size int) v1.Image {
	t.Helper()
	body := make([]byte, size)
	x := uint32(2166136261)
	for _, c := range name {
		x = (x ^ uint32(c)) * 16777619
	}
	for i := range body {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		body[i] = byte(x)
	}
	return testenv.Image(t, testenv.ImageSpec{
		Layers: [][]testenv.File{{{Path: "own", Body: body}}},
		Config: v1.Config{Entrypoint: []string{"/testapp"}},
	})
}

func (b *bench) use() []spec.DiskItem {
	b.t.Helper()
	items, err := b.Use(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return items
}

// While containerd hangs, what is known without it comes soon, and the error says
// of which kinds nothing does; a count of half of it would be wrong.
func TestUseWhileContainerdHangs(t *testing.T) {
	b := newBench(t)
	b.load("example.org/sized:1", sized(t, "sized", 1<<20))
	if err := b.askToCollect(b.ctx); err != nil { // or it collects the archive's index meanwhile
		t.Fatal(err)
	}
	before := b.use()
	b.daemon.Signal(syscall.SIGSTOP)
	began := time.Now()
	items, err := b.UseNow(b.ctx, false)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	b.daemon.Signal(syscall.SIGCONT)
	var uncounted *spec.UncountedError
	if !errors.As(err, &uncounted) || !errors.Is(err, spec.ErrUnavailable) || !slices.Equal(uncounted.Kinds, storedKinds) || !strings.Contains(err.Error(), "does not answer: it hangs") {
		t.Errorf("it says %v", err)
	}
	state := 0
	for _, i := range items {
		if slices.Contains(storedKinds, i.Kind) {
			t.Errorf("counted without containerd: %+v", i)
		}
		if i.Kind == spec.DiskState {
			state++
		}
	}
	if state == 0 {
		t.Errorf("no state: %+v", items)
	}
	if after, err := b.UseNow(b.ctx, false); err != nil || len(after) != len(before) {
		t.Errorf("afterwards: %+v, %v", after, err)
	}
}

func (b *bench) collect(r spec.CollectRequest) spec.Collection {
	b.t.Helper()
	if r.Replica == nil {
		r.Replica = func(string) bool { return false }
	}
	c, err := b.Collect(b.ctx, r)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) retain(name string, images ...spec.PinnedImage) {
	b.t.Helper()
	if err := b.Retain(b.ctx, name, images); err != nil {
		b.t.Fatal(err)
	}
}

// sum is what the items of a kind take that want holds for.
func sum(items []spec.DiskItem, kind spec.DiskKind, want func(spec.DiskItem) bool) (use spec.DiskUse) {
	for _, i := range items {
		if i.Kind == kind && want(i) {
			use.Add(i.DiskUse)
		}
	}
	return use
}

func heldBy(holders ...string) func(spec.DiskItem) bool {
	return func(i spec.DiskItem) bool { return slices.Equal(i.Holders, holders) }
}

func anyItem(spec.DiskItem) bool { return true }

// TestDiskUse: what is counted is what the file system has given, by who needs it.
func TestDiskUse(t *testing.T) {
	b := newBench(t)
	one, two := b.load("app:1", sized(t, "1", 1<<20)), b.load("app:2", sized(t, "2", 2<<20))
	b.retain("p-release-1", one)
	b.retain("p-release-2", two)
	r := request(two, 1, "serve", "8080")
	b.run(r)
	b.await(r.ID, "running", func(i spec.Instance) bool { return i.Phase == spec.PhaseRunning })
	volume := filepath.Join(b.cfg.volumesDir(), "p_data", dataDir)
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(volume, "data"), make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.LogPath(r.ReplicaKey), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	items := b.use()
	within := func(what string, got spec.DiskUse, low, high int64) {
		t.Helper()
		if got.Bytes < low || got.Bytes > high || got.Inodes == 0 {
			t.Errorf("%s: %+v, expected %d to %d bytes", what, got, low, high)
		}
	}
	slack := int64(64 << 10)
	within("layers of release 1 alone", sum(items, spec.DiskLayers, heldBy("p-release-1")), 1<<20, 1<<20+slack)
	within("layers of release 2 and its replica", sum(items, spec.DiskLayers, heldBy("p-release-2", r.ID)), 2<<20, 2<<20+slack)
	within("content of release 1 alone", sum(items, spec.DiskContent, heldBy("p-release-1")), 1<<20, 1<<20+slack)
	within("content of release 2 alone", sum(items, spec.DiskContent, heldBy("p-release-2")), 2<<20, 2<<20+slack)
	if shared := sum(items, spec.DiskLayers, heldBy("p-release-1", "p-release-2", r.ID)); shared.Bytes == 0 {
		t.Errorf("no shared layer in %+v", items)
	}
	within("volume", sum(items, spec.DiskVolumes, func(i spec.DiskItem) bool { return i.Name == "p_data" }), 3<<20, 3<<20+slack)
	within("log", sum(items, spec.DiskLogs, func(i spec.DiskItem) bool { return i.Project == "p" && i.Service == "web" && heldBy(r.ID)(i) }), 1<<20, 1<<20+slack)
	within("writable layer", sum(items, spec.DiskWritable, func(i spec.DiskItem) bool { return i.Name == r.ID && i.Project == "p" && heldBy(r.ID)(i) }), 1, slack)
	within("state", sum(items, spec.DiskState, anyItem), 1, 32<<20)

	// The same as a walk over containerd's directories counts, but for a few directories of its own.
	root := filepath.Join(b.daemon.Dir, "root")
	if roots, err := b.storeRoots(b.ctx); err != nil {
		t.Fatal(err)
	} else if len(roots) > 0 {
		root = filepath.Dir(roots[0])
	}
	walked, err := walk(b.ctx, root, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var counted spec.DiskUse
	for _, kind := range []spec.DiskKind{spec.DiskContent, spec.DiskLayers, spec.DiskWritable} {
		counted.Add(sum(items, kind, anyItem))
	}
	if counted.Bytes > walked.Bytes || walked.Bytes-counted.Bytes > 1<<20 {
		t.Errorf("counted %+v, a walk over %s says %+v", counted, root, walked)
	}

	// What a replica writes is seen the next time.
	if err := os.WriteFile(filepath.Join(b.disk.layers[r.ID].dir, "fs", "grown"), make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(restAfterWalk * 20 * time.Millisecond)
	within("grown layer", sum(b.use(), spec.DiskWritable, anyItem), 5<<20, 5<<20+slack)
	if all, err := b.Filesystems(b.ctx); err != nil || len(all) == 0 || all[0].Size == 0 || all[0].Available > all[0].Free {
		t.Errorf("file systems: %+v, %v", all, err)
	}
}

// TestCollect: what was deployed and isn't needed any more goes at once, what is
// to be deployed yet stays for its time, what is needed for ever.
func TestCollect(t *testing.T) {
	b := newBench(t)
	kept, running, old, fresh := b.load("kept:1", sized(t, "k", 1<<20)), b.load("running:1", sized(t, "r", 1<<20)), b.load("old:1", sized(t, "o", 1<<20)), b.load("fresh:1", sized(t, "f", 1<<20))
	b.retain("p-release-3", kept)
	b.retain("p-release-2", running)
	b.retain("p-release-1", old)
	r := request(running, 1, "serve", "8080")
	b.run(r)
	b.retain("p-release-2")
	b.retain("p-release-1")
	if _, err := b.Hold(b.ctx, "hold p", fresh.Pinned()); err != nil {
		t.Fatal(err)
	}
	b.retain("hold p") // the deploy failed: nothing has been deployed
	// An agent that was killed in a load left this.
	if _, _, err := b.leaseFor(b.ctx, leaseLoad+"killed", pullLease); err != nil {
		t.Fatal(err)
	}
	// What others keep in containerd is theirs.
	others := namespaces.WithNamespace(b.ctx, "others")
	img, err := b.client.ImageService().Get(b.ctx, old.Ref)
	if err != nil {
		t.Fatal(err)
	}
	img.Name = "theirs:1"
	if _, err := b.client.ImageService().Create(others, img); err != nil {
		t.Fatal(err)
	}
	// A layer of a replica that nobody knows, and one that is about to get its container.
	image, err := b.toRun(b.ctx, kept.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"p-web-lost-1", "p-web-new-1"} {
		if _, err := b.prepareSnapshot(b.ctx, id, kept.Ref, image); err != nil {
			t.Fatal(err)
		}
	}
	known := func(id string) bool { return id == "p-web-new-1" }
	logs := filepath.Dir(b.LogPath(r.ReplicaKey))
	for i := range 8 {
		path := filepath.Join(logs, "p-web-gone"+string(rune('0'+i))+"-1.log")
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-time.Duration(i) * time.Hour)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}

	// Of an archive's own index containerd gets rid by itself, some time after the load.
	if err := b.askToCollect(b.ctx); err != nil {
		t.Fatal(err)
	}
	usual := spec.CollectRequest{Grace: spec.ImageGrace, Logs: spec.OldLogs, Replica: known}
	rehearsal := usual
	rehearsal.Rehearse = true
	would := b.collect(rehearsal)
	for _, ref := range []string{kept.Pinned(), running.Pinned(), old.Pinned(), fresh.Pinned()} {
		if _, err := b.Resolve(b.ctx, ref); err != nil {
			t.Errorf("after a rehearsal: %v", err)
		}
	}
	for short, grace := range map[bool]time.Duration{false: spec.ImageGrace, true: spec.ImageGraceShort} {
		items, err := b.UseNow(b.ctx, short)
		want := "may be deployed until " + would.Waiting[0].Until.Add(grace-spec.ImageGrace).UTC().Format("2 January 15:04 UTC")
		if err != nil || !slices.ContainsFunc(items, func(i spec.DiskItem) bool { return slices.Contains(i.Holders, want) }) {
			t.Errorf("short: %t: nothing %s: %+v, %v", short, want, items, err)
		}
	}
	did := b.collect(usual)
	describe := func(items []spec.DiskItem) (out []string) {
		for _, i := range items {
			out = append(out, string(i.Kind)+" "+i.Name)
		}
		return out
	}
	want := []string{
		"content docker.io/library/old:1", "layers docker.io/library/old:1",
		"logs p-web-gone5-1", "logs p-web-gone6-1", "logs p-web-gone7-1", "writable p-web-lost-1",
	}
	if got := describe(did.Items); !slices.Equal(got, want) || !slices.Equal(describe(would.Items), want) {
		t.Errorf("went %q, would have gone %q, expected %q", got, describe(would.Items), want)
	}
	for _, c := range []spec.Collection{would, did} {
		if len(c.Waiting) != 1 || c.Waiting[0].Ref != fresh.Ref || time.Until(c.Waiting[0].Until) < spec.ImageGrace-time.Hour {
			t.Errorf("waits: %+v, expected %s", c.Waiting, fresh.Ref)
		}
	}
	if would.Freed.Bytes < 2<<20 || would.Freed.Inodes < 10 { // what really came free is the whole machine's
		t.Errorf("would have freed %+v; freed %+v", would.Freed, did.Freed)
	}
	for ref, stays := range map[string]bool{kept.Pinned(): true, kept.Ref: true, running.Ref: true, fresh.Ref: true, old.Ref: false, old.Pinned(): false} {
		if _, err := b.Resolve(b.ctx, ref); (err == nil) != stays {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := b.client.ImageService().Get(others, "theirs:1"); err != nil {
		t.Errorf("another namespace's image: %v", err)
	}
	if leases := b.leaseIDs(); slices.Contains(leases, leaseLoad+"killed") {
		t.Errorf("leases: %q", leases)
	}
	if again := b.collect(usual); len(again.Items) > 0 {
		t.Errorf("a second time goes %q", describe(again.Items))
	}

	// Without the grace, what nobody has deployed goes too; what is needed never does.
	b.collect(spec.CollectRequest{Logs: spec.OldLogsShort, Replica: known})
	for ref, stays := range map[string]bool{kept.Ref: true, running.Ref: true, fresh.Ref: false} {
		if _, err := b.Resolve(b.ctx, ref); (err == nil) != stays {
			t.Errorf("without grace: %s: %v", ref, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(logs, "p-web-gone*")); err != nil || len(left) != 1 {
		t.Errorf("logs left: %q, %v", left, err)
	}
	if _, err := os.Stat(b.LogPath(r.ReplicaKey)); err != nil {
		t.Errorf("the log of who runs: %v", err)
	}
	if i := b.instance(r.ID); i.Phase != spec.PhaseRunning {
		t.Errorf("who runs is %s", i.Phase)
	}
	b.run(request(kept, 2, "serve", "8080")) // a rollback works
	// What is left is what the counting says: nothing that nobody holds.
	var held int
	if err := b.client.ContentStore().Walk(b.ctx, func(content.Info) error { held++; return nil }); err != nil {
		t.Fatal(err)
	}
	if use := sum(b.use(), spec.DiskContent, anyItem); use.Inodes != int64(held) {
		t.Errorf("counted %d blobs, there are %d", use.Inodes, held)
	}
	var layers []string
	if err := b.client.SnapshotService("overlayfs").Walk(b.ctx, func(_ context.Context, i snapshots.Info) error { layers = append(layers, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(layers, "p-web-lost-1") || !slices.Contains(layers, "p-web-new-1") {
		t.Errorf("snapshots: %q", layers)
	}
}

func (b *bench) leaseIDs() []string {
	b.t.Helper()
	all, err := b.client.LeasesService().List(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, l := range all {
		out = append(out, l.ID)
	}
	return out
}

// TestCollectWhileLoading: a load may be about to write any name, so that none is
// taken away, and none is said to have been.
func TestCollectWhileLoading(t *testing.T) {
	b := newBench(t)
	old := b.load("old:1", sized(t, "o", 1<<16))
	b.collect(spec.CollectRequest{Grace: spec.ImageGrace}) // what the load left
	leave := b.holds.enter(leaseLoad + "x")
	if c := b.collect(spec.CollectRequest{}); len(c.Items) > 0 {
		t.Errorf("while loading: %+v", c.Items)
	}
	if _, err := b.Resolve(b.ctx, old.Ref); err != nil {
		t.Error(err)
	}
	leave()
	if c := b.collect(spec.CollectRequest{}); len(c.Items) != 2 {
		t.Errorf("after it: %+v", c.Items)
	}
}

// TestUseOfManyImages: to count images again asks for nothing that can't
// have changed.
func TestUseOfManyImages(t *testing.T) {
	b := newBench(t)
	const n = 20
	for i := range n {
		ref := fmt.Sprintf("app:%d", i)
		b.retain(ref, b.load(ref, sized(t, ref, 1<<14)))
	}
	first := time.Now()
	b.use()
	began := time.Now()
	items := b.use()
	t.Logf("%d images: counted in %s, then in %s", n, began.Sub(first), time.Since(began))
	if got := sum(items, spec.DiskLayers, anyItem); got.Inodes < int64(n) {
		t.Errorf("counted %+v", got)
	}
	// A use that was asked for isn't again: this one is wrong, and stays.
	b.disk.mu.Lock()
	for name, c := range b.disk.committed {
		c.use.Bytes = 1 << 40
		b.disk.committed[name] = c
	}
	b.disk.mu.Unlock()
	if got := sum(b.use(), spec.DiskLayers, anyItem); got.Bytes < int64(n)<<40 {
		t.Errorf("counted anew: %+v", got)
	}
}

// TestCollectMeanwhile: images are loaded, held, deployed and let go while
// collections without any grace run. What somebody holds is there.
func TestCollectMeanwhile(t *testing.T) {
	b := newBench(t)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := b.Collect(b.ctx, spec.CollectRequest{Replica: func(string) bool { return false }}); err != nil {
				t.Errorf("collect: %v", err)
			}
		}
	})
	first := b.loadHeld("app:0", sized(t, "0", 1<<16))
	b.retain("p-release-0", first)
	b.retain("hold app:0")
	lost := 0
	for i := range 12 {
		ref := "app:" + string(rune('a'+i))
		image := b.loadHeld(ref, sized(t, ref, 1<<16))
		if image.Digest == "" { // collected before anybody held it: nothing is promised then
			lost++
			continue
		}
		b.retain("p-release-"+ref, image)
		b.retain("hold " + ref)
		for _, x := range []spec.PinnedImage{image, first} {
			if _, err := b.Resolve(b.ctx, x.Pinned()); err != nil {
				t.Errorf("%s is held by a release: %v", ref, err)
			}
		}
		r := request(image, i+1, "exit", "0")
		b.create(r)
		if err := b.Remove(b.ctx, r.ID); err != nil {
			t.Error(err)
		}
		b.retain("p-release-" + ref)
	}
	close(done)
	wg.Wait()
	if lost > 6 {
		t.Errorf("%d of 12 images went before they could be held", lost)
	}
	b.run(request(first, 1, "serve", "8080"))
}

// loadHeld loads an image and holds it, if it is still there.
func (b *bench) loadHeld(ref string, img v1.Image) spec.PinnedImage {
	b.t.Helper()
	if _, err := b.Load(b.ctx, testenv.Archive(b.t, map[string]v1.Image{ref: img})); err != nil {
		b.t.Fatal(err)
	}
	p, err := b.Hold(b.ctx, "hold "+ref, ref)
	if err != nil && !strings.Contains(err.Error(), "not found") {
		b.t.Fatal(err)
	}
	if err != nil {
		return spec.PinnedImage{}
	}
	return p
}

// A lease and a snapshot that a crash left of an earlier question are ended by the
// next one.
func TestAskToCollectAgain(t *testing.T) {
	b := newBench(t)
	manager := b.client.LeasesService()
	if _, err := manager.Create(b.ctx, leases.WithID(leaseCollect)); err != nil {
		t.Fatal(err)
	}
	sn := b.client.SnapshotService(b.cfg.Snapshotter)
	if _, err := sn.Prepare(leases.WithLease(b.ctx, leaseCollect), leaseCollect, ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.askToCollect(b.ctx); err != nil {
			t.Fatal(err)
		}
		if left, err := manager.List(b.ctx); err != nil || len(left) > 0 {
			t.Errorf("left: %+v, %v", left, err)
		}
		if left := b.snapshots(); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
}

// Who asks and goes away, as an agent that is stopped does, leaves nothing.
func TestAskToCollectCutShort(t *testing.T) {
	b := newBench(t)
	b.app() // else there is nothing to look for
	for i := range 40 {
		ctx, cancel := context.WithTimeout(b.ctx, time.Duration(i)*time.Millisecond/2)
		_ = b.askToCollect(ctx) // with or without an error
		cancel()
		for _, key := range b.snapshots() {
			if key == leaseCollect {
				t.Fatalf("after %d half milliseconds its snapshot is left", i)
			}
		}
		if slices.Contains(b.leaseIDs(), leaseCollect) {
			t.Fatalf("after %d half milliseconds its lease is left", i)
		}
	}
}

// Files that containerd couldn't remove, and has forgotten, go with the next
// collection.
func TestCollectForgotten(t *testing.T) {
	b := newBench(t)
	sn := b.client.SnapshotService(b.cfg.Snapshotter)
	mounts, err := sn.Prepare(b.ctx, "stuck", "", rootLabel)
	if err != nil {
		t.Fatal(err)
	}
	dir := mounts[0].Source
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil { // keeps it
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	if err := errors.Join(sn.Remove(b.ctx, "stuck"), b.askToCollect(b.ctx)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("containerd could remove it: %v", err)
	}
	if err := syscall.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	b.collect(spec.CollectRequest{Grace: spec.ImageGrace, Logs: spec.OldLogs})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
}
