package engine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dunnage/spec"
)

// diskNode is something that containerd keeps and that others may need: a blob,
// a snapshot or the download of a blob, as leases name them.
type diskNode struct{ kind, id string }

// Kinds of nodes. A lease's resource says "snapshots/overlayfs" for a snapshot.
const (
	nodeContent  = "content"
	nodeSnapshot = "snapshots"
	nodeIngest   = "ingests"
)

// diskThing is a node with what it takes and what it needs itself: the same
// references that containerd's own collection of garbage follows.
type diskThing struct {
	use   spec.DiskUse
	refs  []diskNode
	layer string // the replica that it is the writable layer of
}

// diskRoot is what keeps a node, and all that this one needs.
type diskRoot struct {
	node   diskNode
	holder string // as DiskItem.Holders has it; empty = it goes with the next collection
}

// diskGraph is what containerd keeps for us.
type diskGraph struct {
	things map[diskNode]diskThing
	roots  []diskRoot
	images map[diskNode][]string // index or manifest -> its names
}

// items lists the graph's things, those that the same images and holders need
// as one. A thing that nobody holds has no holder, also when an image still
// has a name: the name goes too.
func (g diskGraph) items() []spec.DiskItem {
	holders := g.reach(g.roots)
	var byImage []diskRoot
	for _, n := range slices.SortedFunc(maps.Keys(g.images), compareNodes) {
		byImage = append(byImage, diskRoot{n, n.id})
	}
	images := g.reach(byImage)
	groups := map[string]*spec.DiskItem{}
	for _, n := range slices.SortedFunc(maps.Keys(g.things), compareNodes) {
		thing := g.things[n]
		item := spec.DiskItem{Kind: spec.DiskContent, Name: g.name(n, images[n]), Holders: holders[n]}
		switch {
		case thing.layer != "":
			item.Kind, item.Name = spec.DiskWritable, thing.layer
		case n.kind == nodeSnapshot:
			item.Kind = spec.DiskLayers
		}
		key := fmt.Sprintf("%s %q %q %q", item.Kind, item.Name, images[n], holders[n])
		if groups[key] == nil {
			groups[key] = &item
		}
		groups[key].Add(thing.use)
	}
	var out []spec.DiskItem
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, *groups[key])
	}
	return out
}

// name says what a thing is for: the image, or how many share it.
func (g diskGraph) name(n diskNode, images []string) string {
	switch {
	case n.kind == nodeIngest:
		return "download of " + n.id
	case len(images) == 0:
		return "of no image"
	case len(images) > 1:
		return fmt.Sprintf("shared by %d images", len(images))
	}
	if names := g.images[diskNode{nodeContent, images[0]}]; len(names) > 0 {
		return strings.Join(names, ", ")
	}
	return images[0]
}

// reach lists for each node, sorted, which roots' holders it is needed by.
func (g diskGraph) reach(roots []diskRoot) map[diskNode][]string {
	found := map[diskNode]map[string]bool{}
	for _, root := range roots {
		if root.holder == "" {
			continue
		}
		for todo := []diskNode{root.node}; len(todo) > 0; {
			n := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			thing, ok := g.things[n]
			if !ok || found[n][root.holder] {
				continue
			}
			if found[n] == nil {
				found[n] = map[string]bool{}
			}
			found[n][root.holder] = true
			todo = append(todo, thing.refs...)
		}
	}
	out := map[diskNode][]string{}
	for n, set := range found {
		out[n] = slices.Sorted(maps.Keys(set))
	}
	return out
}

func compareNodes(a, b diskNode) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id))
}

// gcRefs reads the references that containerd's labels make: to blobs, and to
// the snapshots of one snapshotter.
func gcRefs(labels map[string]string, snapshotter string) []diskNode {
	var out []diskNode
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		name, ok := strings.CutPrefix(key, "containerd.io/gc.ref.")
		switch {
		case !ok:
		case name == "content", strings.HasPrefix(name, "content."), strings.HasPrefix(name, "content/"):
			out = append(out, diskNode{nodeContent, labels[key]})
		case name == "snapshot."+snapshotter, strings.HasPrefix(name, "snapshot."+snapshotter+"/"), strings.HasPrefix(name, "snapshot."+snapshotter+"."):
			out = append(out, diskNode{nodeSnapshot, labels[key]})
		}
	}
	return out
}

func sortItems(items []spec.DiskItem) {
	slices.SortFunc(items, func(a, b spec.DiskItem) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Project, b.Project), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Name, b.Name), slices.Compare(a.Holders, b.Holders))
	})
}
