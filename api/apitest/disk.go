package apitest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"dunnage/spec"
)

// DiskReport implements api.Backend: each release of a project has an image of its
// own, all share a base, and there is something that nobody needs until Collect.
func (f *Fake) DiskReport(context.Context) (spec.DiskReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	const mib = 1 << 20
	r := spec.DiskReport{At: f.Now, Budget: 100 * mib, Filesystems: []spec.Filesystem{
		{Dir: "/var/lib/dunnage", Size: 1000 * mib, Free: 450 * mib, Available: 400 * mib, Inodes: 1000, FreeInodes: 700},
	}}
	for _, name := range slices.Sorted(maps.Keys(f.projects)) {
		var all []int
		var holders []string
		for _, rel := range f.projects[name].releases {
			holder := fmt.Sprintf("%s release %d", name, rel.Number)
			all, holders = append(all, rel.Number), append(holders, holder)
			r.Items = append(r.Items,
				spec.DiskItem{Kind: spec.DiskContent, Name: fmt.Sprintf("%s:%d", name, rel.Number), Project: name, Releases: []int{rel.Number}, Holders: []string{holder}, DiskUse: spec.DiskUse{Bytes: mib, Inodes: 2}},
				spec.DiskItem{Kind: spec.DiskLayers, Name: fmt.Sprintf("%s:%d", name, rel.Number), Project: name, Releases: []int{rel.Number}, Holders: []string{holder}, DiskUse: spec.DiskUse{Bytes: 3 * mib, Inodes: 20}})
		}
		last := all[len(all)-1:]
		r.Items = append(r.Items,
			spec.DiskItem{Kind: spec.DiskLayers, Name: "shared by 2 images", Project: name, Releases: slices.Clone(all), Holders: holders, DiskUse: spec.DiskUse{Bytes: 20 * mib, Inodes: 100}},
			spec.DiskItem{Kind: spec.DiskWritable, Name: name + "-web-a3929b71-1", Project: name, Service: "web", Releases: last, Holders: []string{name + "-web-a3929b71-1"}, DiskUse: spec.DiskUse{Bytes: mib / 2, Inodes: 5}},
			spec.DiskItem{Kind: spec.DiskLogs, Name: name + "-web-a3929b71-1", Project: name, Service: "web", Releases: last, Holders: []string{name + "-web-a3929b71-1"}, DiskUse: spec.DiskUse{Bytes: 2 * mib, Inodes: 2}},
			spec.DiskItem{Kind: spec.DiskLogs, Name: name + "-web-00000000-1", Project: name, Service: "web", Holders: []string{"last 5 generations of removed replicas"}, DiskUse: spec.DiskUse{Bytes: mib, Inodes: 1}},
			spec.DiskItem{Kind: spec.DiskVolumes, Name: name + "_data", Project: name, Partly: true, DiskUse: spec.DiskUse{Bytes: 1000 * mib, Inodes: 10}})
	}
	r.Items = append(r.Items, spec.DiskItem{Kind: spec.DiskState, Name: "store and files of the agent", Holders: []string{"the agent"}, DiskUse: spec.DiskUse{Bytes: mib / 4, Inodes: 9}})
	r.Items = append(r.Items, f.unneeded()...)
	for _, i := range r.Items {
		if i.Kind.Counted() {
			r.Counted.Add(i.DiskUse)
			if len(i.Holders) == 0 {
				r.Collectable.Add(i.DiskUse)
			}
		}
	}
	return r, nil
}

// unneeded is what the next Collect removes.
func (f *Fake) unneeded() []spec.DiskItem {
	if f.collected {
		return nil
	}
	return []spec.DiskItem{
		{Kind: spec.DiskContent, Name: "docker.io/library/old:1", DiskUse: spec.DiskUse{Bytes: 5 << 20, Inodes: 4}},
		{Kind: spec.DiskLayers, Name: "docker.io/library/old:1", DiskUse: spec.DiskUse{Bytes: 10 << 20, Inodes: 300}},
		{Kind: spec.DiskLogs, Name: "shop-web-99999999-1", Project: "shop", Service: "web", DiskUse: spec.DiskUse{Bytes: 1 << 20, Inodes: 1}},
	}
}

// Collect implements api.Backend.
func (f *Fake) Collect(_ context.Context, rehearse, all bool) (spec.Collection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("collect rehearse=%v all=%v", rehearse, all))
	c := spec.Collection{Items: f.unneeded()}
	for _, i := range c.Items {
		c.Freed.Add(i.DiskUse)
	}
	f.collected = f.collected || !rehearse
	return c, nil
}
