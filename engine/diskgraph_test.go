package engine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"dunnage/spec"
)

// TestDiskGraph: what several share is one item with all who need it, and what
// nobody needs has no holder, whatever refers to it.
func TestDiskGraph(t *testing.T) {
	blob := func(id string) diskNode { return diskNode{nodeContent, id} }
	snap := func(id string) diskNode { return diskNode{nodeSnapshot, id} }
	one := spec.DiskUse{Bytes: 10, Inodes: 1}
	g := diskGraph{
		things: map[diskNode]diskThing{
			blob("m1"):              {use: one, refs: []diskNode{blob("base"), blob("l1"), snap("s1")}},
			blob("m2"):              {use: one, refs: []diskNode{blob("base"), blob("l2"), snap("s2")}},
			blob("m3"):              {use: one, refs: []diskNode{blob("base"), snap("s3")}},
			blob("base"):            {use: one},
			blob("l1"):              {use: one},
			blob("l2"):              {use: one, refs: []diskNode{blob("m2")}}, // a circle ends
			snap("s0"):              {use: one},
			snap("s1"):              {use: one, refs: []diskNode{snap("s0")}},
			snap("s2"):              {use: one, refs: []diskNode{snap("s0")}},
			snap("s3"):              {use: one, refs: []diskNode{snap("s0")}},
			snap("web-1"):           {use: one, refs: []diskNode{snap("s1")}, layer: "web-1"},
			snap("lost"):            {use: one, refs: []diskNode{snap("gone")}, layer: "lost"},
			{nodeIngest, "layer-x"}: {use: one},
		},
		roots: []diskRoot{
			{blob("m1"), "release 1"}, {blob("m2"), "release 2"}, {snap("web-1"), "web-1"}, {blob("m3"), ""},
			{blob("removed"), "release 3"}, {diskNode{nodeIngest, "layer-x"}, "pull"},
		},
		images: map[diskNode][]string{blob("m1"): {"app:1"}, blob("m2"): nil, blob("m3"): {"old:1", "old:latest"}},
	}
	all := []string{"release 1", "release 2"}
	want := []spec.DiskItem{
		{Kind: spec.DiskContent, Name: "app:1", Holders: all[:1], DiskUse: spec.DiskUse{Bytes: 20, Inodes: 2}},
		{Kind: spec.DiskContent, Name: "download of layer-x", Holders: []string{"pull"}, DiskUse: one},
		{Kind: spec.DiskContent, Name: "m2", Holders: all[1:], DiskUse: spec.DiskUse{Bytes: 20, Inodes: 2}},
		{Kind: spec.DiskContent, Name: "old:1, old:latest", DiskUse: one},
		{Kind: spec.DiskContent, Name: "shared by 3 images", Holders: all, DiskUse: one},
		{Kind: spec.DiskLayers, Name: "app:1", Holders: []string{"release 1", "web-1"}, DiskUse: one},
		{Kind: spec.DiskLayers, Name: "m2", Holders: all[1:], DiskUse: one},
		{Kind: spec.DiskLayers, Name: "old:1, old:latest", DiskUse: one},
		{Kind: spec.DiskLayers, Name: "shared by 3 images", Holders: []string{"release 1", "release 2", "web-1"}, DiskUse: one},
		{Kind: spec.DiskWritable, Name: "lost", DiskUse: one},
		{Kind: spec.DiskWritable, Name: "web-1", Holders: []string{"web-1"}, DiskUse: one},
	}
	got := g.items()
	sortItems(got)
	same := func(a, b spec.DiskItem) bool {
		return a.Kind == b.Kind && a.Name == b.Name && slices.Equal(a.Holders, b.Holders) && a.DiskUse == b.DiskUse
	}
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// TestGCRefs reads the labels as containerd's collection does.
func TestGCRefs(t *testing.T) {
	got := gcRefs(map[string]string{
		"containerd.io/gc.ref.content":              "a",
		"containerd.io/gc.ref.content.l.0":          "b",
		"containerd.io/gc.ref.content/config":       "c",
		"containerd.io/gc.ref.contents":             "no",
		"containerd.io/gc.ref.snapshot.overlayfs":   "s",
		"containerd.io/gc.ref.snapshot.overlayfs/1": "t",
		"containerd.io/gc.ref.snapshot.native":      "no",
		"containerd.io/distribution.source.x":       "no",
	}, "overlayfs")
	want := []diskNode{{nodeContent, "a"}, {nodeContent, "b"}, {nodeContent, "c"}, {nodeSnapshot, "s"}, {nodeSnapshot, "t"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestWalk counts what is allocated: a hole takes nothing, a second name neither.
func TestWalk(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	count := func() spec.DiskUse {
		use, err := walk(t.Context(), dir, map[string]bool{dir: true, filepath.Join(dir, "skipped"): true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return use
	}
	empty := count()
	full := write("a/full", 1<<20)
	if err := os.Link(full, filepath.Join(dir, "a", "again")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(write("a/hole", 0), 1<<30); err != nil {
		t.Fatal(err)
	}
	write("skipped/large", 1<<20)
	if err := os.Symlink("/usr", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	got := count()
	if more := got.Bytes - empty.Bytes; more < 1<<20 || more > 1<<20+1<<16 || got.Inodes != empty.Inodes+4 {
		t.Errorf("got %+v, empty it was %+v", got, empty)
	}
}

// TestFreed: what comes free is what the file systems say; others may write meanwhile.
func TestFreed(t *testing.T) {
	before := []spec.Filesystem{{Dir: "/a", Free: 100, FreeInodes: 10}, {Dir: "/b", Free: 100, FreeInodes: 10}}
	after := []spec.Filesystem{{Dir: "/a", Free: 170, FreeInodes: 9}, {Dir: "/b", Free: 120, FreeInodes: 10}, {Dir: "/c", Free: 1}}
	if got := freed(before, after); got != (spec.DiskUse{Bytes: 90}) {
		t.Errorf("got %+v", got)
	}
}
