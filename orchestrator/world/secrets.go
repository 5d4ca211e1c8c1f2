package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"dunnage/spec"
)

// Vault seals secrets in clear, with the name and number of the version, so
// that the world can tell when a replica gets another one's value.
type Vault struct{ World *World }

// Load takes the key, or makes it.
func (v Vault) Load(key *spec.SecretKey) (*spec.SecretKey, error) {
	if key == nil {
		return &spec.SecretKey{Store: "world", Source: "file"}, nil
	}
	return nil, nil
}

// Status says whether the world is locked.
func (v Vault) Status() spec.KeyStatus {
	v.World.mu.Lock()
	defer v.World.mu.Unlock()
	return spec.KeyStatus{Source: "file", Locked: v.World.Locked}
}

// Look is Status.
func (v Vault) Look() spec.KeyStatus { return v.Status() }

// Reset unlocks when it is finished.
func (v Vault) Reset(spec.SecretValue) (spec.KeyRotation, error) {
	if v.Status().Locked == "" {
		return spec.KeyRotation{}, fmt.Errorf("the secrets aren't locked: %w", spec.ErrRefused)
	}
	r, err := v.Rotate(spec.SecretValue{}, true)
	r.Finish = func() error {
		_, err := v.Unlock(spec.SecretValue{})
		return err
	}
	return r, err
}

// Unlock unlocks.
func (v Vault) Unlock(spec.SecretValue) (*spec.SecretKey, error) {
	v.World.mu.Lock()
	defer v.World.mu.Unlock()
	v.World.Locked = ""
	return nil, nil
}

// Rotate changes nothing but the record.
func (v Vault) Rotate(_ spec.SecretValue, full bool) (spec.KeyRotation, error) {
	none := func() error { return nil }
	return spec.KeyRotation{Key: spec.SecretKey{Store: "world", Source: "file", Compact: full}, Finish: none, Abandon: none}, nil
}

func sealed(v spec.SecretVersion) []byte {
	return fmt.Appendf(nil, "%s@%d@%s=", v.SecretID, v.Version, v.Nonce)
}

// Seal seals, unless the world is locked.
func (v Vault) Seal(version spec.SecretVersion, value spec.SecretValue) ([]byte, error) {
	if locked := v.Status().Locked; locked != "" {
		return nil, errors.Join(errors.New(locked), spec.ErrUnavailable)
	}
	return append(sealed(version), value.Reveal()...), nil
}

// Open opens, unless the world is locked.
func (v Vault) Open(version spec.SecretVersion) (spec.SecretValue, error) {
	if locked := v.Status().Locked; locked != "" {
		return spec.SecretValue{}, errors.Join(errors.New(locked), spec.ErrUnavailable)
	}
	value, ok := bytes.CutPrefix(version.Sealed, sealed(version))
	if !ok {
		return spec.SecretValue{}, fmt.Errorf("secret %s version %d is damaged", version.SecretID, version.Version)
	}
	return spec.NewSecretValue(slices.Clone(value)), nil
}

// Deliverer keeps what is delivered.
type Deliverer struct{ World *World }

// Paths is of no matter here.
func (Deliverer) Paths(string, spec.Container) spec.SecretPaths { return spec.SecretPaths{} }

// Deliver keeps the fingerprint, last.
func (d Deliverer) Deliver(_ context.Context, x spec.Delivery, swapped func() error) error {
	w := d.World
	w.mu.Lock()
	effect, err := w.call("deliver to %s", x.Replica)
	w.mu.Unlock()
	if !effect {
		return err
	}
	if swapped != nil {
		if err := swapped(); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return err
	}
	w.claimed[x.Replica] = x.Fingerprint
	if w.delivered[x.Replica] == "" || w.Lie != LieDelivered {
		w.delivered[x.Replica] = x.Fingerprint
	}
	return err
}

// Delivered lists what is delivered.
func (d Deliverer) Delivered() (map[string]string, error) {
	d.World.mu.Lock()
	defer d.World.mu.Unlock()
	if d.World.Lie == LieDelivered {
		return maps.Clone(d.World.claimed), nil
	}
	return maps.Clone(d.World.delivered), nil
}

// Reaches reports whether the process sees what is delivered: always.
func (Deliverer) Reaches(string, int) (bool, error) { return true, nil }

// Withdraw forgets.
func (d Deliverer) Withdraw(_ context.Context, replica string) error {
	w := d.World
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.delivered[replica]; !ok {
		return nil
	}
	effect, err := w.call("withdraw %s", replica)
	if effect {
		delete(w.delivered, replica)
	}
	return err
}

// Delivered is the fingerprint of what a replica has.
func (w *World) Delivered(replica string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.delivered[replica]
}

// Alive reports whether the replica has a process.
func (w *World) Alive(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	return c != nil && c.phase == spec.PhaseRunning
}

// User is of no matter here.
func (w *World) User(context.Context, string) (uid, gid uint32, err error) { return 0, 0, nil }
