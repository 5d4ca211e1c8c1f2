package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"dunnage/spec"
)

// Create makes the container, its writable layer and its volumes, without a
// process. An existing container is left as it is.
func (e *Engine) Create(ctx context.Context, r spec.CreateRequest) error {
	defer e.replicas.Lock(r.ID)()
	defer e.inventory.touch(r.ID)
	e.keepBallast()
	if _, err := e.client.ContainerService().Get(ctx, r.ID); err == nil {
		return nil
	} else if !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "look for container %s", r.ID)
	}
	image, err := e.toRun(ctx, r.Image.Digest)
	if err != nil {
		return fmt.Errorf("create %s: image %s: %w", r.ID, r.Image.Pinned(), err)
	}
	if err := e.create(ctx, r, image); err != nil {
		return fmt.Errorf("create %s: %w", r.ID, sayNoSpace(err))
	}
	e.untried.Store(r.ID, nil)
	return nil
}

// create argues its order thus: the snapshot is a root of containerd's garbage
// collection by its own label, so that it needs no lease until the container
// record refers to it, and Remove deletes it by the replica's ID, which the
// agent's store knows since before; it is on the disk before the record that
// says so; what the mounts need comes last, because Start makes it again if it
// is missing.
func (e *Engine) create(ctx context.Context, r spec.CreateRequest, image *storedImage) error {
	rec := record{Mounts: allMounts(r.Container.Mounts, image.config), StopSignal: stopSignal(r.Container, image.config), Limits: r.Limits, Logging: r.Logging, TTY: r.Container.TTY, Secrets: secretSources(r.Secrets)}
	if _, err := parseSignal(rec.StopSignal); err != nil {
		return err
	}
	for _, m := range rec.Mounts {
		if m.Type == spec.MountBind { // before anything is made
			if err := checkBind(m); err != nil {
				return err
			}
		}
	}
	layers, err := e.prepareSnapshot(ctx, r.ID, r.Image.Pinned(), image)
	if err != nil {
		return err
	}
	root, err := openRoot(layers)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // read only
	if err := e.writeFiles(r); err != nil {
		return err
	}
	if err := e.putContainer(ctx, r, rec, image, root); err != nil {
		return err
	}
	return e.prepareMounts(r.ID, rec.Mounts, func() (*rootView, error) { return root, nil })
}

// rootLabel keeps a snapshot from being collected.
var rootLabel = snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "dunnage"})

// leaseFor keeps what is made with the returned context from being collected
// until it is released, or for as long as life. One that a crash left is used on.
func (e *Engine) leaseFor(ctx context.Context, id string, life time.Duration) (context.Context, func(), error) {
	manager := e.client.LeasesService()
	_, err := manager.Create(ctx, leases.WithID(id), leases.WithExpiration(life))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, nil, e.wrap(ctx, err, "make lease")
	}
	release := func() {
		// With a context of its own: the caller's may have ended. Left over,
		// the lease runs out by itself.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.RPCTimeout)
		defer cancel()
		_ = manager.Delete(ctx, leases.Lease{ID: id})
	}
	return leases.WithLease(ctx, id), release, nil
}

// prepareSnapshot makes the writable layer anew: one without a container is
// the rest of a crash.
func (e *Engine) prepareSnapshot(ctx context.Context, id, ref string, image *storedImage) ([]mount.Mount, error) {
	s := e.client.SnapshotService(e.cfg.Snapshotter)
	mounts, err := s.Prepare(ctx, id, image.chain, rootLabel)
	if errdefs.IsAlreadyExists(err) {
		if err := s.Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			return nil, e.wrap(ctx, err, "remove the writable layer that a crash left")
		}
		mounts, err = s.Prepare(ctx, id, image.chain, rootLabel)
	}
	if err != nil {
		return nil, e.wrap(ctx, err, "make writable layer over image %s (is it unpacked?)", ref)
	}
	return mounts, syncLayer(mounts)
}

// syncLayer writes the directories of a new writable layer to the disk, which
// containerd does only with its databases: after a power cut they would name a
// layer that isn't there, and the container could never start.
func syncLayer(mounts []mount.Mount) error {
	for _, m := range mounts {
		upper := option(m.Options, "upperdir")
		if upper == "" { // an image without layers: a bind mount
			upper = m.Source
		}
		dirs := []string{upper, filepath.Dir(upper), filepath.Dir(filepath.Dir(upper))}
		if work := option(m.Options, "workdir"); work != "" {
			dirs = append(dirs, work)
		}
		for _, dir := range dirs {
			if err := syncDir(dir); err != nil {
				return fmt.Errorf("write writable layer to disk: %w", err)
			}
		}
	}
	return nil
}

func (e *Engine) putContainer(ctx context.Context, r spec.CreateRequest, rec record, image *storedImage, root *rootView) error {
	oci, err := e.ociSpec(ctx, r, image, root)
	if err != nil {
		return err
	}
	body, err := typeurl.MarshalAny(oci)
	if err != nil {
		return fmt.Errorf("encode runtime specification: %w", err)
	}
	extension, err := rec.encode()
	if err != nil {
		return err
	}
	labels := labelsOf(r.ReplicaKey)
	labels[labelLimits] = r.Limits.Fingerprint()
	_, err = e.client.ContainerService().Create(ctx, containers.Container{
		ID:          r.ID,
		Labels:      labels,
		Image:       r.Image.Pinned(),
		Runtime:     containers.RuntimeInfo{Name: runtimeName},
		Spec:        body,
		SnapshotKey: r.ID,
		Snapshotter: e.cfg.Snapshotter,
		Extensions:  map[string]typeurl.Any{recordKey: extension},
	})
	return e.wrap(ctx, err, "record container")
}

// record is what later calls need of a CreateRequest, kept in the container.
type record struct {
	Mounts     []spec.Mount `json:"mounts,omitempty"` // with the image's VOLUMEs
	StopSignal string       `json:"stop_signal"`
	Limits     spec.Limits  `json:"limits,omitzero"`
	Logging    spec.Logging `json:"logging,omitzero"`
	TTY        bool         `json:"tty,omitempty"`
	Secrets    []string     `json:"secrets,omitempty"` // what must be there on the host for a start
}

const (
	recordKey  = "dunnage/replica"
	recordType = "dunnage/replica/v1"
)

// rawAny is a typeurl.Any of bytes that are encoded already.
type rawAny struct {
	url   string
	value []byte
}

func (a rawAny) GetTypeUrl() string { return a.url }
func (a rawAny) GetValue() []byte   { return a.value }

func (r record) encode() (typeurl.Any, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode replica record: %w", err)
	}
	return rawAny{recordType, b}, nil
}

func recordOf(c containers.Container) (record, error) {
	var r record
	a, ok := c.Extensions[recordKey]
	if !ok {
		return r, fmt.Errorf("container %s has no dunnage record: remove it (ctr containers rm) and deploy again", c.ID)
	}
	if err := json.Unmarshal(a.GetValue(), &r); err != nil {
		return r, fmt.Errorf("read record of container %s: %w", c.ID, err)
	}
	return r, nil
}
