package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"

	"dunnage/spec"
)

// namedImage is an image's name as it was when it was looked at.
type namedImage struct {
	name, digest string
	updated      time.Time
}

// Prefixes of the leases that aren't a release's. Each runs out by itself, too.
const (
	leasePull    = "pull-"   // a download, under way or to be gone on with
	leaseLoad    = "load-"   // an archive that is being read
	leasePulled  = "pulled-" // an image that has just come
	leaseCollect = "collect" // one that asks containerd to collect its garbage
)

// addHolders adds what leases and names keep, and notes which of them the next
// collection takes away.
func (e *Engine) addHolders(ctx context.Context, look *diskLook, r spec.CollectRequest, deployed map[string]time.Time, running map[string][]string) error {
	named, err := e.client.ImageService().List(ctx)
	if err != nil {
		return e.wrap(ctx, err, "list images")
	}
	held, err := e.addLeases(ctx, look, r, deployed)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, img := range named {
		d := img.Target.Digest.String()
		n := diskNode{nodeContent, d}
		look.graph.images[n] = append(look.graph.images[n], img.Name)
		fresh := img.UpdatedAt.After(deployed[d]) && now.Sub(img.UpdatedAt) < r.Grace
		switch {
		case held[d]: // a release has it: its name costs nothing and finds it
		case len(running[d]) > 0:
			for _, replica := range running[d] {
				look.graph.roots = append(look.graph.roots, diskRoot{n, replica})
			}
		case fresh:
			until := img.UpdatedAt.Add(r.Grace)
			look.waiting = append(look.waiting, spec.WaitingImage{Ref: img.Name, Until: until})
			look.graph.roots = append(look.graph.roots, diskRoot{n, "may be deployed until " + until.UTC().Format("2 January 15:04 UTC")})
		default:
			look.names = append(look.names, namedImage{img.Name, d, img.UpdatedAt})
		}
	}
	slices.SortFunc(look.waiting, func(a, b spec.WaitingImage) int {
		return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.Ref, b.Ref))
	})
	return nil
}

// addLeases adds what leases keep and returns the digests that releases and operations do.
func (e *Engine) addLeases(ctx context.Context, look *diskLook, r spec.CollectRequest, deployed map[string]time.Time) (held map[string]bool, err error) {
	manager := e.client.LeasesService()
	all, err := manager.List(ctx)
	if err != nil {
		return nil, e.wrap(ctx, err, "list leases")
	}
	slices.SortFunc(all, func(a, b leases.Lease) int { return cmp.Compare(a.ID, b.ID) })
	held = map[string]bool{}
	for _, l := range all {
		resources, err := manager.ListResources(ctx, l)
		if errdefs.IsNotFound(err) { // let go meanwhile
			continue
		}
		if err != nil {
			return nil, e.wrap(ctx, err, "list what lease %s keeps", l.ID)
		}
		nodes := e.leased(resources)
		holder := e.leaseHolder(l, nodes, r, deployed)
		if holder == "" {
			look.leases = append(look.leases, l.ID)
			continue
		}
		for _, n := range nodes {
			look.graph.roots = append(look.graph.roots, diskRoot{n, holder})
			if n.kind == nodeContent && l.Labels[labelRelease] != "" {
				held[n.id] = true
				if _, ok := look.graph.images[n]; !ok {
					look.graph.images[n] = nil // it is an image, also when its name has moved on
				}
			}
		}
	}
	return held, nil
}

// leased are the nodes of a lease.
func (e *Engine) leased(resources []leases.Resource) []diskNode {
	var out []diskNode
	for _, r := range resources {
		kind := r.Type
		if kind == nodeSnapshot+"/"+e.cfg.Snapshotter {
			kind = nodeSnapshot
		}
		out = append(out, diskNode{kind, r.ID})
	}
	return out
}

// leaseHolder says for whom a lease keeps something; empty = for nobody any more.
func (e *Engine) leaseHolder(l leases.Lease, nodes []diskNode, r spec.CollectRequest, deployed map[string]time.Time) string {
	if name := l.Labels[labelRelease]; name != "" {
		return name
	}
	age := time.Since(l.CreatedAt)
	switch {
	case strings.HasPrefix(l.ID, leaseLoad), strings.HasPrefix(l.ID, leasePull):
		switch {
		case e.holds.active(l.ID) && strings.HasPrefix(l.ID, leaseLoad):
			return "load in progress"
		case e.holds.active(l.ID):
			return "pull in progress"
		case strings.HasPrefix(l.ID, leasePull) && age < min(r.Grace, pullLease):
			return "interrupted pull, to be gone on with until " + l.CreatedAt.Add(min(r.Grace, pullLease)).UTC().Format("2 January 15:04 UTC")
		}
		return ""
	case strings.HasPrefix(l.ID, leasePulled):
		superseded := slices.ContainsFunc(nodes, func(n diskNode) bool { return deployed[n.id].After(l.CreatedAt) })
		if superseded || age >= min(r.Grace, pulledFor) {
			return ""
		}
		return fmt.Sprintf("pulled at %s", l.CreatedAt.UTC().Format("15:04 UTC"))
	}
	return "lease " + l.ID // somebody else's
}
