package engine

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"dunnage/spec"
)

// holds keeps a collection from taking away what somebody comes to need while it
// runs. What containerd collects follows leases and names, in one transaction;
// so it is enough that no name or lease is taken away that was wanted meanwhile.
//
// Who only retains more of what is held already needs no turn: the loop must not
// wait for a containerd that hangs.
type holds struct {
	turn sync.Mutex // one name or lease at a time is looked up to be held, or is taken away

	mu     sync.Mutex
	wanted map[string]bool // digests that were retained since the collection began
	busy   map[string]int  // leases of pulls and loads at work
}

// enter notes that a pull or load uses the lease, and is about to write names.
func (h *holds) enter(lease string) (leave func()) {
	h.turn.Lock()
	defer h.turn.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy == nil {
		h.busy = map[string]int{}
	}
	h.busy[lease]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.busy[lease]--; h.busy[lease] == 0 {
			delete(h.busy, lease)
		}
	}
}

// active reports whether a pull or load of this process uses the lease.
func (h *holds) active(lease string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.busy[lease] > 0
}

// begin forgets what was wanted during an earlier collection.
func (h *holds) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wanted = map[string]bool{}
}

// Hold is Resolve for somebody who is about to use the image: from here on it is
// retained under name, with what that retains already, until Retain(name, nil).
func (e *Engine) Hold(ctx context.Context, name, ref string) (spec.PinnedImage, error) {
	found, err := e.lookUp(ctx, name, ref)
	if err != nil {
		return spec.PinnedImage{}, err
	}
	// containerd may have been collecting what lost its name before: only what is
	// there with the lease stays.
	if err := e.stillThere(ctx, found.Digest); err != nil {
		return spec.PinnedImage{}, fmt.Errorf("image %s: %w", found.Ref, err)
	}
	return found, nil
}

func (e *Engine) lookUp(ctx context.Context, name, ref string) (spec.PinnedImage, error) {
	e.holds.turn.Lock()
	defer e.holds.turn.Unlock()
	found, err := e.Resolve(ctx, ref)
	if err != nil {
		return found, err
	}
	e.holds.want(found)
	return found, e.withRoom(func() error { return e.addToLease(ctx, name, found.Digest) })
}

// want notes that images are needed from now on.
func (h *holds) want(pinned ...spec.PinnedImage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wanted == nil { // nothing has been collected yet
		return
	}
	for _, p := range pinned {
		h.wanted[p.Digest] = true
	}
}

// mayGo reports whether a name of the digest may be taken away: nobody wants it,
// no load may be about to write it, and no pull with that lease. Called with turn held.
func (h *holds) mayGo(dgst, pull string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for lease := range h.busy {
		if strings.HasPrefix(lease, leaseLoad) || lease == pull {
			return false
		}
	}
	return !h.wanted[dgst]
}

// idle reports whether no pull or load is at work.
func (h *holds) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.busy) == 0
}

// labelHold marks the leases that Hold makes: an image that was only held hasn't
// been deployed.
const labelHold = "dunnage/hold"

func releaseLease(name string) leases.Lease {
	return leases.Lease{ID: "release-" + digest.FromString(name).Encoded()[:32]}
}

func (e *Engine) addToLease(ctx context.Context, name, dgst string) error {
	manager := e.client.LeasesService()
	l := releaseLease(name)
	_, err := manager.Create(ctx, leases.WithID(l.ID), leases.WithLabel(labelRelease, name), leases.WithLabel(labelHold, "true"))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return e.wrap(ctx, err, "hold image %s for %s", dgst, name)
	}
	return e.wrap(ctx, manager.AddResource(ctx, l, contentResource(dgst)), "hold image %s for %s", dgst, name)
}

// labelDeployed on an index or manifest says since when a release had it.
const labelDeployed = "dunnage/deployed"

// letGoAll ends what Retain or Hold began. What a release had is labelled, so
// that a collection knows it from what somebody brought for a deploy to come.
func (e *Engine) letGoAll(ctx context.Context, name string) error {
	manager := e.client.LeasesService()
	l := releaseLease(name)
	found, err := manager.List(ctx, "id=="+l.ID)
	if err != nil {
		return e.wrap(ctx, err, "find what %s retains", name)
	}
	if len(found) > 0 && found[0].Labels[labelHold] == "" {
		held, err := manager.ListResources(ctx, l)
		if err != nil && !errdefs.IsNotFound(err) {
			return e.wrap(ctx, err, "list what %s retains", name)
		}
		for _, r := range held {
			if err := e.noteDeployed(ctx, r.ID, found[0].CreatedAt); err != nil {
				return err
			}
		}
	}
	if err := manager.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "let go of the images of %s", name)
	}
	return nil
}

func (e *Engine) noteDeployed(ctx context.Context, dgst string, at time.Time) error {
	info := content.Info{Digest: digest.Digest(dgst), Labels: map[string]string{labelDeployed: at.UTC().Format(time.RFC3339Nano)}}
	_, err := e.client.ContentStore().Update(ctx, info, "labels."+labelDeployed)
	if isNotFound(err) { // somebody removed it behind our back
		return nil
	}
	return e.wrap(ctx, err, "note that image %s was deployed", dgst)
}
