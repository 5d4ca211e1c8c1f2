package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// disk is what counting remembers from one time to the next.
type disk struct {
	walks walks

	mu        sync.Mutex
	committed map[string]committed // snapshot -> its use, which doesn't change any more
	layers    map[string]committed // replica -> where its writable layer is
	content   string               // containerd's directories; empty = not asked for yet
	snapshots string
}

// committed is what was asked of a snapshot once. One of the same name that was
// made later is another.
type committed struct {
	created time.Time
	use     spec.DiskUse
	dir     string
}

// Use lists what takes room, sorted by kind, project and name. When containerd doesn't
// answer, an error comes beside what is known without it.
func (e *Engine) Use(ctx context.Context) ([]spec.DiskItem, error) { return e.use(ctx, false) }

// use is Use with who holds things while the disk is short, or isn't.
func (e *Engine) use(ctx context.Context, short bool) ([]spec.DiskItem, error) {
	items, _, err := e.count(ctx, spec.UsualCollection(short))
	sortItems(items)
	return items, err
}

// UseNow is Use for somebody who waits: while containerd doesn't answer, it comes
// back within a second with what is known without it.
func (e *Engine) UseNow(ctx context.Context, short bool) ([]spec.DiskItem, error) {
	if silent := e.Answers(ctx); silent != nil {
		ctx, cancel := context.WithTimeout(ctx, walkPatienceNow)
		defer cancel()
		items, err := e.countRest(ctx, noLook(), spec.UsualCollection(short).Logs)
		sortItems(items)
		return items, errors.Join(&spec.UncountedError{Kinds: storedKinds, Err: silent}, err)
	}
	return e.use(ctx, short)
}

// walkPatienceNow is how long UseNow waits for directories that are due.
const walkPatienceNow = 100 * time.Millisecond

// storedKinds are known only by asking containerd.
var storedKinds = []spec.DiskKind{spec.DiskContent, spec.DiskLayers, spec.DiskWritable}

// count is Use for a collection of that kind, with the images that wait for the end
// of their grace.
func (e *Engine) count(ctx context.Context, r spec.CollectRequest) ([]spec.DiskItem, []spec.WaitingImage, error) {
	seen, err := e.lookAtDisk(ctx, r)
	if err != nil { // of half a look nobody knows who needs what
		seen, err = noLook(), &spec.UncountedError{Kinds: storedKinds, Err: err}
	}
	items, restErr := e.countRest(ctx, seen, r.Logs)
	return items, seen.waiting, errors.Join(err, restErr)
}

// countRest adds to what containerd keeps what is counted without it.
func (e *Engine) countRest(ctx context.Context, seen diskLook, oldLogs int) ([]spec.DiskItem, error) {
	logs, logsErr := e.logItems(oldLogs)
	dirs, skip, dirsErr := e.countedDirs(seen)
	walkThese := make([]string, 0, len(dirs))
	for _, d := range dirs {
		walkThese = append(walkThese, d.path)
	}
	e.disk.walks.refresh(ctx, e.ctx, &e.wg, walkThese, skip)
	var items []spec.DiskItem
	for _, i := range seen.graph.items() {
		if c, ok := seen.containers[i.Name]; ok && i.Kind == spec.DiskWritable {
			i.Project, i.Service = c.Project, c.Service
		}
		items = append(items, i)
	}
	for _, d := range dirs {
		use, partly := e.disk.walks.use(d.path)
		if d.item.Kind == spec.DiskWritable { // its holders are in the graph
			i := slices.IndexFunc(items, func(i spec.DiskItem) bool { return i.Kind == spec.DiskWritable && i.Name == d.item.Name })
			if i >= 0 {
				items[i].DiskUse, items[i].Partly = use, partly
			}
			continue
		}
		d.item.DiskUse, d.item.Partly = use, partly
		items = append(items, d.item)
	}
	for _, l := range logs {
		items = append(items, l.DiskItem)
	}
	return items, errors.Join(logsErr, dirsErr)
}

// countedDir is a directory that is counted by walking it.
type countedDir struct {
	path string
	item spec.DiskItem
}

// countedDirs lists the directories to walk, and those in them that are counted otherwise.
func (e *Engine) countedDirs(seen diskLook) ([]countedDir, map[string]bool, error) {
	var out []countedDir
	var errs []error
	for id, dir := range seen.layers {
		out = append(out, countedDir{dir, spec.DiskItem{Kind: spec.DiskWritable, Name: id}})
	}
	for _, in := range []struct {
		dir, name string
		holders   func(name string) []string
	}{
		{e.cfg.volumesDir(), "", func(string) []string { return nil }},
		{e.cfg.anonymousDir(), "anonymous volumes of ", func(replica string) []string { return []string{replica} }},
	} {
		entries, err := os.ReadDir(in.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, entry := range entries {
			if !entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
				continue
			}
			item := spec.DiskItem{Kind: spec.DiskVolumes, Name: in.name + entry.Name(), Holders: in.holders(entry.Name())}
			if c, ok := seen.containers[entry.Name()]; ok {
				item.Project, item.Service = c.Project, c.Service
			}
			out = append(out, countedDir{filepath.Join(in.dir, entry.Name()), item})
		}
	}
	e.disk.mu.Lock()
	blobs, layers := e.disk.content, e.disk.snapshots
	e.disk.mu.Unlock()
	containerd := filepath.Join(e.cfg.StateDir, "containerd")
	skip := map[string]bool{e.cfg.volumesDir(): true, e.cfg.anonymousDir(): true, filepath.Join(e.cfg.StateDir, "logs"): true, containerd: true}
	if blobs != "" {
		skip[filepath.Join(blobs, "blobs")], skip[filepath.Join(blobs, "ingest")], skip[filepath.Join(layers, "snapshots")] = true, true, true
	}
	held := []string{"the agent"}
	out = append(out, countedDir{e.cfg.StateDir, spec.DiskItem{Kind: spec.DiskState, Name: "store and files of the agent", Holders: held}})
	if _, err := os.Stat(containerd); err == nil && blobs != "" {
		out = append(out, countedDir{containerd, spec.DiskItem{Kind: spec.DiskState, Name: "databases and log of containerd", Holders: held}})
	}
	return out, skip, errors.Join(errs...)
}

// diskLook is what containerd keeps for us at one moment.
type diskLook struct {
	graph      diskGraph
	containers map[string]spec.ReplicaKey
	layers     map[string]string   // replica -> the directory of its writable layer
	names      []namedImage        // that the next collection takes away
	leases     []string            // likewise
	waiting    []spec.WaitingImage // that no release has had yet, those that go first first
}

func noLook() diskLook {
	return diskLook{
		graph:      diskGraph{things: map[diskNode]diskThing{}, images: map[diskNode][]string{}},
		containers: map[string]spec.ReplicaKey{}, layers: map[string]string{},
	}
}

// lookAtDisk asks containerd what it keeps and what keeps it.
func (e *Engine) lookAtDisk(ctx context.Context, r spec.CollectRequest) (diskLook, error) {
	look := noLook()
	if err := e.findRoots(ctx); err != nil {
		return look, err
	}
	deployed, err := e.addBlobs(ctx, &look)
	if err != nil {
		return look, err
	}
	running, err := e.addContainers(ctx, &look, r)
	if err != nil {
		return look, err
	}
	return look, e.addHolders(ctx, &look, r, deployed, running)
}

// findRoots asks containerd once where its content and snapshots are.
func (e *Engine) findRoots(ctx context.Context) error {
	e.disk.mu.Lock()
	known := e.disk.content != ""
	e.disk.mu.Unlock()
	if known {
		return nil
	}
	r, err := e.client.IntrospectionService().Plugins(ctx, "type==io.containerd.content.v1", "type==io.containerd.snapshotter.v1,id=="+e.cfg.Snapshotter)
	if err != nil {
		return e.wrap(ctx, err, "ask containerd for its directories")
	}
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	for _, p := range r.Plugins {
		if root := p.Exports["root"]; p.Type == "io.containerd.content.v1" {
			e.disk.content = root
		} else {
			e.disk.snapshots = root
		}
	}
	return nil
}

// addBlobs adds the blobs and downloads, and says of each when a release had it last.
func (e *Engine) addBlobs(ctx context.Context, look *diskLook) (deployed map[string]time.Time, err error) {
	store := e.client.ContentStore()
	deployed = map[string]time.Time{}
	err = store.Walk(ctx, func(i content.Info) error {
		look.graph.things[diskNode{nodeContent, i.Digest.String()}] = diskThing{use: e.blobUse(i), refs: gcRefs(i.Labels, e.cfg.Snapshotter)}
		if at, err := time.Parse(time.RFC3339Nano, i.Labels[labelDeployed]); err == nil {
			deployed[i.Digest.String()] = at
		}
		return nil
	})
	if err != nil {
		return nil, e.wrap(ctx, err, "list blobs")
	}
	downloads, err := store.ListStatuses(ctx)
	if err != nil {
		return nil, e.wrap(ctx, err, "list downloads")
	}
	for _, d := range downloads {
		// A directory with the data and four small files beside it.
		look.graph.things[diskNode{nodeIngest, d.Ref}] = diskThing{use: spec.DiskUse{Bytes: blocks(d.Offset) + 5*block, Inodes: 6}}
	}
	return deployed, nil
}

// block is what most file systems allocate at least.
const block = 4096

func blocks(size int64) int64 { return (size + block - 1) / block * block }

// blobUse asks the file system; where it doesn't say, the length has to do.
func (e *Engine) blobUse(i content.Info) spec.DiskUse {
	e.disk.mu.Lock()
	root := e.disk.content
	e.disk.mu.Unlock()
	var st unix.Stat_t
	path := filepath.Join(root, "blobs", i.Digest.Algorithm().String(), i.Digest.Encoded())
	if unix.Lstat(path, &st) != nil {
		return spec.DiskUse{Bytes: blocks(i.Size), Inodes: 1}
	}
	return spec.DiskUse{Bytes: st.Blocks * 512, Inodes: 1}
}

// addContainers adds snapshots and what containers need of them. It returns
// which replicas run an image.
func (e *Engine) addContainers(ctx context.Context, look *diskLook, r spec.CollectRequest) (running map[string][]string, err error) {
	containers, err := e.client.ContainerService().List(ctx)
	if err != nil {
		return nil, e.wrap(ctx, err, "list containers")
	}
	running = map[string][]string{}
	owner := map[string]string{} // snapshot -> container
	for _, c := range containers {
		look.containers[c.ID], owner[c.SnapshotKey] = keyOf(c), c.ID
		look.graph.roots = append(look.graph.roots, diskRoot{diskNode{nodeSnapshot, c.SnapshotKey}, c.ID})
		if _, d, err := canonical(c.Image); err == nil {
			running[d.String()] = append(running[d.String()], c.ID)
		}
	}
	var all []snapshots.Info
	err = e.client.SnapshotService(e.cfg.Snapshotter).Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		all = append(all, i)
		return nil
	})
	if err != nil {
		return nil, e.wrap(ctx, err, "list snapshots")
	}
	e.disk.forget(all)
	for _, i := range all {
		n := diskNode{nodeSnapshot, i.Name}
		thing := diskThing{refs: gcRefs(i.Labels, e.cfg.Snapshotter)}
		if i.Parent != "" {
			thing.refs = append(thing.refs, diskNode{nodeSnapshot, i.Parent})
		}
		ours := i.Labels["containerd.io/gc.root"] == "dunnage"
		switch id := owner[i.Name]; {
		case i.Kind == snapshots.KindCommitted:
			if thing.use, err = e.committedUse(ctx, i); err != nil {
				return nil, err
			}
		case id != "" || ours:
			thing.layer = i.Name
			dir, err := e.layerDir(ctx, i)
			if err != nil {
				return nil, err
			}
			if dir != "" {
				look.layers[i.Name] = dir
			}
			if id == "" && (r.Replica == nil || r.Replica(i.Name)) {
				look.graph.roots = append(look.graph.roots, diskRoot{n, i.Name})
			}
		default: // a layer that is being unpacked: a part of it is there
			if _, labelled := i.Labels["containerd.io/gc.root"]; labelled {
				look.graph.roots = append(look.graph.roots, diskRoot{n, "somebody's own label"})
			}
		}
		look.graph.things[n] = thing
	}
	return running, nil
}

// forget drops what is remembered of snapshots that are gone.
func (d *disk) forget(present []snapshots.Info) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, known := range []*map[string]committed{&d.committed, &d.layers} {
		kept := make(map[string]committed, len(*known))
		for _, i := range present {
			if c, ok := (*known)[i.Name]; ok && c.created.Equal(i.Created) {
				kept[i.Name] = c
			}
		}
		*known = kept
	}
}

// committedUse asks for the use of a committed snapshot once. containerd has
// measured it when it was unpacked, as the file system had allocated.
func (e *Engine) committedUse(ctx context.Context, i snapshots.Info) (spec.DiskUse, error) {
	e.disk.mu.Lock()
	c, ok := e.disk.committed[i.Name]
	e.disk.mu.Unlock()
	if ok {
		return c.use, nil
	}
	u, err := e.client.SnapshotService(e.cfg.Snapshotter).Usage(ctx, i.Name)
	if isNotFound(err) { // collected meanwhile
		return spec.DiskUse{}, nil
	}
	if err != nil {
		return spec.DiskUse{}, e.wrap(ctx, err, "ask what snapshot %s takes", i.Name)
	}
	use := spec.DiskUse{Bytes: u.Size, Inodes: u.Inodes}
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	e.disk.committed[i.Name] = committed{created: i.Created, use: use}
	return use, nil
}

// layerDir is where a writable layer is, with overlayfs' own directory beside
// it; empty = it is gone.
func (e *Engine) layerDir(ctx context.Context, i snapshots.Info) (string, error) {
	e.disk.mu.Lock()
	c, ok := e.disk.layers[i.Name]
	e.disk.mu.Unlock()
	if ok {
		return c.dir, nil
	}
	mounts, err := e.client.SnapshotService(e.cfg.Snapshotter).Mounts(ctx, i.Name)
	if isNotFound(err) {
		return "", nil
	}
	if err != nil || len(mounts) == 0 {
		return "", e.wrap(ctx, err, "find the writable layer of %s", i.Name)
	}
	dir := mounts[0].Source // a bind mount: an image without layers, or another snapshotter
	if upper := option(mounts[0].Options, "upperdir"); upper != "" {
		dir = filepath.Dir(upper)
	}
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	e.disk.layers[i.Name] = committed{created: i.Created, dir: dir}
	return dir, nil
}

// Filesystems are those that hold what is counted, each once. Where
// containerd's own directories are is known since it was asked first.
func (e *Engine) Filesystems(context.Context) ([]spec.Filesystem, error) {
	e.disk.mu.Lock()
	dirs := []string{e.cfg.StateDir, e.disk.content, e.disk.snapshots}
	e.disk.mu.Unlock()
	var out []spec.Filesystem
	seen := map[uint64]bool{}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		fs, dev, err := filesystem(dir)
		if err != nil {
			return out, err
		}
		if !seen[dev] {
			seen[dev] = true
			out = append(out, fs)
		}
	}
	return out, nil
}

// filesystem is the one that a directory is on, and its device.
func filesystem(dir string) (f spec.Filesystem, dev uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return f, 0, fmt.Errorf("find the file system of %s: %w", dir, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return f, 0, fmt.Errorf("ask for the space of %s: %w", dir, err)
	}
	unit := int64(fs.Frsize)
	return spec.Filesystem{
		Dir: dir, Size: int64(fs.Blocks) * unit, Free: int64(fs.Bfree) * unit, Available: int64(fs.Bavail) * unit,
		Inodes: int64(fs.Files), FreeInodes: int64(fs.Ffree),
	}, st.Dev, nil
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
