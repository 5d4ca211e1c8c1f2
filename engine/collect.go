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

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"

	"dunnage/internal/fault"
	"dunnage/spec"
)

// Collect removes what nobody needs, or says what it would remove. It takes away
// names and leases, and lets containerd collect what is then needed by nobody:
// in one transaction, with leases that were made meanwhile.
func (e *Engine) Collect(ctx context.Context, r spec.CollectRequest) (spec.Collection, error) {
	if r.Rehearse {
		items, waiting, err := e.count(ctx, r)
		return collectable(items, waiting), err
	}
	e.collecting.Lock()
	defer e.collecting.Unlock()
	e.holds.begin()
	e.keepBallast()
	items, waiting, err := e.count(ctx, r) // it also finds out which file systems containerd is on
	before, fsErr := e.Filesystems(ctx)
	if fsErr != nil {
		return spec.Collection{}, fsErr
	}
	out := collectable(items, waiting)
	if len(out.Items) == 0 && err != nil {
		return spec.Collection{}, err
	}
	errs := []error{err}
	if err == nil { // else nobody knows what is needed; logs are known without containerd
		errs = append(errs, e.collectStored(ctx, r))
	}
	errs = append(errs, e.collectLogs(r.Logs))
	if len(out.Items) > 0 { // what somebody has come to need meanwhile is still there
		left, _, err := e.count(ctx, r)
		errs = append(errs, err)
		out.Items = gone(out.Items, left)
	}
	after, err := e.Filesystems(ctx)
	out.Freed = freed(before, after)
	e.keepBallast()
	return out, errors.Join(append(errs, err)...)
}

// collectable are the items that nobody holds, but for volumes: they are users'.
func collectable(items []spec.DiskItem, waiting []spec.WaitingImage) spec.Collection {
	out := spec.Collection{Waiting: waiting}
	for _, i := range items {
		if len(i.Holders) == 0 && i.Kind != spec.DiskVolumes {
			out.Items = append(out.Items, i)
			out.Freed.Add(i.DiskUse)
		}
	}
	sortItems(out.Items)
	return out
}

// gone are the items of before that aren't left.
func gone(before, left []spec.DiskItem) []spec.DiskItem {
	type name struct {
		kind spec.DiskKind
		name string
	}
	there := map[name]bool{}
	for _, i := range left {
		there[name{i.Kind, i.Name}] = true
	}
	return slices.DeleteFunc(before, func(i spec.DiskItem) bool { return there[name{i.Kind, i.Name}] })
}

// freed is what the file systems have more than before. Others write meanwhile.
func freed(before, after []spec.Filesystem) spec.DiskUse {
	var out spec.DiskUse
	for _, a := range after {
		i := slices.IndexFunc(before, func(b spec.Filesystem) bool { return b.Dir == a.Dir })
		if i >= 0 {
			out.Bytes += a.Free - before[i].Free
			out.Inodes += a.FreeInodes - before[i].FreeInodes
		}
	}
	return spec.DiskUse{Bytes: max(out.Bytes, 0), Inodes: max(out.Inodes, 0)}
}

// collectStored looks again, since counting may have taken seconds, and takes away names, leases and layers.
func (e *Engine) collectStored(ctx context.Context, r spec.CollectRequest) error {
	look, err := e.lookAtDisk(ctx, r)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range look.names {
		errs = append(errs, e.collectName(ctx, n))
	}
	for _, id := range look.leases {
		errs = append(errs, e.collectLease(ctx, id))
	}
	kept := look.graph.reach(look.graph.roots)
	for n, thing := range look.graph.things {
		if thing.layer != "" && len(kept[n]) == 0 {
			errs = append(errs, e.collectLayer(ctx, thing.layer, r))
		}
	}
	return errors.Join(append(errs, e.askToCollect(ctx))...)
}

// collectName takes an image's name away if it is what it was and nobody has come
// to need it. A load may be about to write any name, a pull its own.
func (e *Engine) collectName(ctx context.Context, n namedImage) error {
	ctx, cancel := e.briefly(ctx)
	defer cancel()
	e.holds.turn.Lock()
	defer e.holds.turn.Unlock()
	if !e.holds.mayGo(n.digest, pullLeaseOf(n.name)) {
		return nil // the next collection looks again
	}
	img, err := e.client.ImageService().Get(ctx, n.name)
	switch {
	case errdefs.IsNotFound(err):
		return nil
	case err != nil:
		return e.wrap(ctx, err, "look for image %s", n.name)
	case img.Target.Digest.String() != n.digest, !img.UpdatedAt.Equal(n.updated):
		return nil
	}
	if err := e.client.ImageService().Delete(ctx, n.name); err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "remove image %s", n.name)
	}
	return nil
}

// briefly is for what deploys wait for: it waits for no collection of garbage, and a
// containerd that hangs mustn't hold them up for minutes.
func (e *Engine) briefly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.cfg.RPCTimeout)
}

// collectLease takes a lease away that keeps something for nobody any more. While
// pulls are at work, what has just come stays.
func (e *Engine) collectLease(ctx context.Context, id string) error {
	ctx, cancel := e.briefly(ctx)
	defer cancel()
	e.holds.turn.Lock()
	defer e.holds.turn.Unlock()
	if e.holds.active(id) || strings.HasPrefix(id, leasePulled) && !e.holds.idle() {
		return nil
	}
	if err := e.client.LeasesService().Delete(ctx, leases.Lease{ID: id}); err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "remove lease %s", id)
	}
	return nil
}

// collectLayer removes a writable layer that no container has. A replica is
// recorded before anything of it is made, under the same lock.
func (e *Engine) collectLayer(ctx context.Context, id string, r spec.CollectRequest) error {
	defer e.replicas.Lock(id)()
	if r.Replica == nil || r.Replica(id) {
		return nil
	}
	err := e.client.SnapshotService(e.cfg.Snapshotter).Remove(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) { // the latter: a container has it by now
		return e.wrap(ctx, err, "remove the writable layer of %s", id)
	}
	return nil
}

// askToCollect makes containerd collect its garbage, and waits for that.
func (e *Engine) askToCollect(ctx context.Context) error {
	e.asking.Lock() // somebody else's lease may have ended before our garbage was there
	defer e.asking.Unlock()
	all, err := e.endLease(ctx)
	if err == nil && !all { // there may be room by now
		all, err = e.endLease(ctx)
	}
	if err == nil && !all {
		e.cfg.Log.Warn("the disk has no room to look for what earlier collections couldn't remove: the next one does")
	}
	return e.wrap(ctx, err, "let containerd collect its garbage")
}

// endLease makes a lease and ends it, which is how to ask. An empty snapshot goes
// with it: containerd looks for files that no snapshot has only where one has just
// gone, and forgets those that it couldn't remove, as on a full disk. Without room
// for it, not all is collected. Both have one name, so that the next to ask ends
// what a crash has left.
func (e *Engine) endLease(ctx context.Context) (all bool, err error) {
	manager, l := e.client.LeasesService(), leases.Lease{ID: leaseCollect}
	snapshots := e.client.SnapshotService(e.cfg.Snapshotter)
	// containerd may go on with what nobody waits for any more: that what it makes
	// can be taken away is known only once it has answered.
	made, cancel := e.briefly(context.WithoutCancel(ctx))
	defer cancel()
	_, err = manager.Create(made, leases.WithID(l.ID), leases.WithExpiration(pulledFor))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return false, err
	}
	some, err := e.anyLayer(made)
	if some {
		_, err = snapshots.Prepare(leases.WithLease(made, l.ID), leaseCollect, "")
	}
	all = err == nil || errdefs.IsAlreadyExists(err)
	if all || noSpace(err) {
		err = nil
	}
	if ended := manager.Delete(ctx, l, leases.SynchronousDelete); ended != nil {
		err = errors.Join(err, ended)
		// The agent stops, perhaps: nothing may stay until the next one asks.
		gone, cancel := e.briefly(context.WithoutCancel(ctx))
		defer cancel()
		_ = snapshots.Remove(gone, leaseCollect)
		_ = manager.Delete(gone, l)
	}
	return all, err
}

// anyLayer reports whether the snapshotter has files. One that never had any mustn't
// be asked for a snapshot on a full disk: its database would begin with half a
// page, and it could never open it again.
func (e *Engine) anyLayer(ctx context.Context) (bool, error) {
	if err := e.findRoots(ctx); err != nil {
		return false, err
	}
	e.disk.mu.Lock()
	dir := filepath.Join(e.disk.snapshots, "snapshots")
	e.disk.mu.Unlock()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return len(entries) > 0, err
}

// collectLogs removes the logs of removed replicas but the newest of each service,
// and the directories that have none.
func (e *Engine) collectLogs(keep int) error {
	items, err := e.logItems(keep)
	errs := []error{err}
	for _, l := range items {
		if len(l.Holders) > 0 {
			continue
		}
		if err := fault.Do("log remove", func() error { return e.cfg.removeLog(l) }); err != nil {
			errs = append(errs, fmt.Errorf("remove an old log: %w", err))
		}
	}
	e.cfg.removeEmptyLogDirs()
	return oneOf(errs)
}
