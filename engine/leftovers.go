package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// Leftover is something of ours that belongs to nobody the store knows, and that
// no look at containers shows. Logs are none: those of what is gone are kept until a
// collection takes them.
type Leftover struct {
	Kind string // writable layer, anonymous volumes, files, start record, cgroup
	Name string // of the replica
	Path string // empty = it is containerd's
}

func (l Leftover) String() string {
	if l.Path == "" {
		return l.Kind + " of " + l.Name
	}
	return l.Kind + " " + l.Path
}

// Leftovers lists them; known tells the replicas that the store knows. What can't be
// listed is an error beside those that can.
func (e *Engine) Leftovers(ctx context.Context, known func(replica string) bool) ([]Leftover, error) {
	layers, failed := e.leftLayers(ctx, known)
	all := layers
	for _, in := range []struct{ kind, dir, suffix string }{
		{"anonymous volumes", e.cfg.anonymousDir(), ""},
		{"files", e.cfg.filesDir(""), ""},
		{"start record", e.started.dir, ".json"},
		{"cgroup", e.cgroup.procs, ""},
	} {
		entries, err := os.ReadDir(in.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("look for leftovers: %w", err))
		}
		for _, entry := range entries {
			name, ok := strings.CutSuffix(entry.Name(), in.suffix)
			switch {
			case !ok, strings.HasPrefix(name, "."), entry.IsDir() != (in.suffix == ""), known(name):
			case in.kind == "cgroup" && len(e.cgroup.pids(name)) > 0: // whatever runs in it isn't a leftover
			default:
				all = append(all, Leftover{Kind: in.kind, Name: name, Path: filepath.Join(in.dir, entry.Name())})
			}
		}
	}
	return all, failed
}

// leftLayers lists the writable layers that no container has. Those of images,
// and those that an unpack is at, have another label.
func (e *Engine) leftLayers(ctx context.Context, known func(replica string) bool) ([]Leftover, error) {
	containers, err := e.client.ContainerService().List(ctx)
	if err != nil {
		return nil, e.wrap(ctx, err, "list containers")
	}
	used := map[string]bool{}
	for _, c := range containers {
		used[c.SnapshotKey] = true
	}
	var out []Leftover
	err = e.client.SnapshotService(e.cfg.Snapshotter).Walk(ctx, func(_ context.Context, s snapshots.Info) error {
		if s.Kind == snapshots.KindActive && s.Labels["containerd.io/gc.root"] == "dunnage" && !used[s.Name] && !known(s.Name) {
			out = append(out, Leftover{Kind: "writable layer", Name: s.Name})
		}
		return nil
	})
	return out, e.wrap(ctx, err, "list snapshots")
}

// RemoveLeftover removes it, unless it has come to belong to somebody. A replica
// is recorded before anything of it is made, under the same lock.
func (e *Engine) RemoveLeftover(ctx context.Context, l Leftover, known func(replica string) bool) error {
	defer e.replicas.Lock(l.Name)()
	if known(l.Name) {
		return nil
	}
	var err error
	switch l.Kind {
	case "writable layer":
		err = e.client.SnapshotService(e.cfg.Snapshotter).Remove(ctx, l.Name)
		if errdefs.IsNotFound(err) {
			err = nil
		}
	case "start record":
		return e.started.remove(l.Name)
	case "cgroup":
		err = e.cgroup.remove(l.Name)
	default:
		err = removeTree(l.Path)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", l, err)
	}
	return nil
}

// remove removes a replica's groups in every hierarchy. The kernel refuses one
// that has a process.
func (c cgroups) remove(id string) error {
	parent := filepath.Base(c.procs)
	dirs := []string{filepath.Join(cgroupRoot, parent, id)}
	if !c.v2 {
		var err error
		if dirs, err = filepath.Glob(filepath.Join(cgroupRoot, "*", parent, id)); err != nil {
			return err
		}
	}
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, removeGroup(dir))
	}
	return errors.Join(errs...)
}

// removeGroup removes a group and those in it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
