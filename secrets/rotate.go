package secrets

import (
	"errors"
	"fmt"

	"dunnage/spec"
)

var errRotating = errors.Join(errors.New("the keys are being rotated; try again in a moment"), spec.ErrUnavailable)

// rotation is a change of keys between Rotate and Finish or Abandon.
type rotation struct {
	v      *Vault
	record spec.SecretKey
	data   *key         // nil = the data key stays
	place  func() error // puts the outer key in its place
}

// Rotate prepares a new outer key, and a new data key if full. Until it is
// finished or abandoned there is no second one, and during a full one nothing is sealed.
func (v *Vault) Rotate(passphrase spec.SecretValue, full bool) (spec.KeyRotation, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	v.mu.RLock()
	record, err, rotating := v.record, v.isLocked(), v.rotation != nil
	v.mu.RUnlock()
	if err != nil {
		return spec.KeyRotation{}, err
	}
	if rotating {
		return spec.KeyRotation{}, errRotating
	}
	return v.prepare(spec.SecretKey{Store: record.Store, Compact: full || record.Compact}, fitting(*record), passphrase, full)
}

// Reset prepares a first key, as if there were none yet, for a store whose key
// is lost: what was sealed opens never again. A vault that is open, or could
// be, is left alone. Between Finish and Abandon it is as with Rotate.
func (v *Vault) Reset(passphrase spec.SecretValue) (spec.KeyRotation, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	v.mu.RLock()
	record, locked, rotating := v.record, v.data == nil, v.rotation != nil
	v.mu.RUnlock()
	switch {
	case !locked:
		return spec.KeyRotation{}, fmt.Errorf("the secrets aren't locked, so none is given up; `dunnage secret rotate-key` makes a new key: %w", spec.ErrRefused)
	case rotating:
		return spec.KeyRotation{}, errRotating
	case record == nil:
		return spec.KeyRotation{}, fmt.Errorf("the store has no key yet that could be lost; `dunnage unlock` makes the first one: %w", spec.ErrRefused)
	}
	if outer, _, err := v.outer(*record, source.find); err == nil {
		opens := opens(*record, outer)
		outer.free()
		if opens {
			return spec.KeyRotation{}, fmt.Errorf("the key is there, so no secret is given up; `dunnage unlock` opens them: %w", spec.ErrRefused)
		}
	}
	if f, ok := v.source.(fileSource); ok {
		if err := f.vacant(fitting(*record)); err != nil {
			return spec.KeyRotation{}, fmt.Errorf("%w: %w", err, spec.ErrRefused)
		}
	}
	return v.prepare(spec.SecretKey{Store: newUUID(), Compact: true}, fitting(*record), passphrase, true)
}

// prepare begins the change to the record next, by a new outer key: one that doesn't fit.
func (v *Vault) prepare(next spec.SecretKey, fits func(*key) bool, passphrase spec.SecretValue, full bool) (spec.KeyRotation, error) {
	r := &rotation{v: v, place: func() error { return nil }}
	var outer *key
	var err error
	next.Source = v.source.kind()
	if next.Source == kindPassphrase {
		outer, next.KDF, err = choosePassphrase(passphrase, v.effort)
	} else {
		if outer, r.place, err = v.source.next(fits); err != nil {
			err = fmt.Errorf("%w: %w", err, spec.ErrRefused)
		}
	}
	if err != nil {
		return spec.KeyRotation{}, err
	}
	defer outer.free()
	if err := r.begin(next, outer, full); err != nil {
		return spec.KeyRotation{}, err
	}
	out := spec.KeyRotation{Key: r.record, Finish: r.finish, Abandon: r.abandon}
	if full && v.Status().Locked == "" {
		out.Reseal = r.reseal
	}
	return out, nil
}

func (r *rotation) begin(next spec.SecretKey, outer *key, full bool) error {
	if full {
		var err error
		if r.data, err = randomKey(); err != nil {
			return err
		}
	}
	r.v.mu.Lock()
	defer r.v.mu.Unlock()
	data := r.data
	if data == nil {
		data = r.v.data
	}
	var err error
	if r.record, err = sealKey(next, outer, data); err != nil {
		r.data.free()
		return err
	}
	r.v.rotation = r
	return nil
}

// reseal is what is to be stored as Sealed under the new data key.
func (r *rotation) reseal(of spec.SecretVersion) ([]byte, error) {
	value, err := r.v.Open(of)
	if err != nil {
		return nil, err
	}
	defer value.Clear()
	r.v.mu.RLock()
	defer r.v.mu.RUnlock()
	if r.v.rotation != r {
		return nil, errors.New("the rotation of keys has ended")
	}
	return seal(r.data, forValue, aboutValue(r.record.Store, of), value.Reveal())
}

// finish is called when the new record is durable: from here on it is the new
// keys that count, even if the outer one can't be put in its place yet.
func (r *rotation) finish() error {
	r.v.turn.Lock()
	defer r.v.turn.Unlock()
	r.v.mu.Lock()
	if r.v.rotation != r {
		r.v.mu.Unlock()
		return nil
	}
	r.v.rotation = nil
	r.v.record, r.v.from = &r.record, r.v.source
	if r.data != nil {
		r.v.data.free()
		r.v.data = r.data
	}
	r.v.mu.Unlock()
	if err := r.place(); err != nil {
		return fmt.Errorf("the new key is in use, but not in its place, which the next start tries again: %w", err)
	}
	return nil
}

// abandon forgets the new keys. An outer key that was written stays beside the
// one in use: a store that said it couldn't save may have saved all the same,
// and the next Load tells. The next rotation takes it.
func (r *rotation) abandon() error {
	r.v.mu.Lock()
	defer r.v.mu.Unlock()
	if r.v.rotation == r {
		r.v.rotation = nil
		r.data.free()
	}
	return nil
}
