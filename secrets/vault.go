package secrets

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"dunnage/spec"
)

// Config says where the outer key comes from and where secrets are delivered.
type Config struct {
	// Source of the outer key: "file:/path", "credential" or "credential:NAME",
	// "passphrase", or "command:/path ARGUMENTS" (split at spaces, no shell).
	Source string

	// Former may name the source that the store's key was taken from so far. It
	// is asked when Source hasn't the key, until Rotate moves the store to Source.
	Former string

	// RunDir is where Deliverer works, below "secrets". It isn't for the Vault.
	RunDir string
}

// Vault seals and opens. It starts locked: see Load. It is safe for concurrent use.
type Vault struct {
	source source
	former source   // nil = none
	effort spec.KDF // for a new passphrase

	turn sync.Mutex // Load, Unlock and rotations, which ask sources and take their time

	mu       sync.RWMutex // what follows; keys may be freed only under it
	record   *spec.SecretKey
	data     *key      // nil = locked
	locked   string    // why
	rotation *rotation // begun and not ended
}

// NewVault doesn't look at the source yet.
func NewVault(c Config) (*Vault, error) {
	v := &Vault{locked: "secrets are locked: no key was asked for yet", effort: newPassphrase}
	var err error
	if v.source, err = parseSource(c.Source); err != nil {
		return nil, err
	}
	if c.Former != "" {
		v.former, err = parseSource(c.Former)
	}
	return v, err
}

// Status says whether the vault is open, and why it isn't.
func (v *Vault) Status() spec.KeyStatus {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := spec.KeyStatus{Source: v.source.String()}
	if v.data == nil {
		s.Locked = v.locked
		s.Unset = v.record == nil && v.source.kind() == kindPassphrase
		s.Passphrase = s.Unset || v.record != nil && v.record.KDF != nil
	}
	return s
}

// Load opens the store's key record with what the source has, or makes the first
// record. A vault that stays locked isn't an error: Status says why.
func (v *Vault) Load(record *spec.SecretKey) (*spec.SecretKey, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	return v.load(record)
}

func (v *Vault) load(record *spec.SecretKey) (*spec.SecretKey, error) {
	if record == nil {
		outer, err := v.source.first()
		if err != nil {
			v.lock(nil, err.Error())
			return nil, nil
		}
		defer outer.free()
		return v.begin(outer, nil)
	}
	outer, former, err := v.outer(*record)
	if err != nil {
		v.lock(record, err.Error())
		return nil, nil
	}
	defer outer.free()
	changed := *record
	if !former && record.Source != v.source.kind() {
		changed.Source, changed.KDF = v.source.kind(), nil
	}
	if err := v.open(&changed, outer); err != nil {
		v.lock(record, err.Error())
		return nil, nil
	}
	if changed.Source == record.Source {
		return nil, nil
	}
	return &changed, nil
}

// outer finds the outer key of the record, and says whether it was the former source that has it.
func (v *Vault) outer(record spec.SecretKey) (k *key, former bool, err error) {
	fits := fitting(record)
	outer, err := v.source.find(fits)
	if err == nil {
		return outer, false, nil
	}
	if v.former != nil {
		if outer, err := v.former.find(fits); err == nil {
			return outer, true, nil
		}
	}
	if record.KDF != nil {
		return nil, false, errors.New(askPassphrase)
	}
	if record.Source != v.source.kind() {
		return nil, false, fmt.Errorf("the store's key comes from another source (%s): start the agent with that one, or give the same key to %s; `dunnage secret rotate-key` then makes a new one there (%w)",
			record.Source, v.source, err)
	}
	return nil, false, err
}

// fitting tells the outer key of a record from others.
func fitting(record spec.SecretKey) func(*key) bool {
	return func(k *key) bool {
		sum, err := check(k, record.Store)
		return err == nil && subtle.ConstantTimeCompare(sum, record.Check) == 1
	}
}

// begin makes the first record of a store.
func (v *Vault) begin(outer *key, kdf *spec.KDF) (*spec.SecretKey, error) {
	data, err := randomKey()
	if err != nil {
		return nil, err
	}
	record, err := sealKey(spec.SecretKey{Store: newUUID(), Source: v.source.kind(), KDF: kdf}, outer, data)
	if err != nil {
		data.free()
		return nil, err
	}
	v.put(&record, data)
	return &record, nil
}

// sealKey completes a record: the data key sealed by the outer one.
func sealKey(record spec.SecretKey, outer, data *key) (spec.SecretKey, error) {
	var err error
	if record.Check, err = check(outer, record.Store); err != nil {
		return record, err
	}
	record.Sealed, err = seal(outer, forDataKey, fields([]byte(record.Store)), data.bytes())
	record.Created = time.Now().UTC()
	return record, err
}

// open takes the data key out of the record.
func (v *Vault) open(record *spec.SecretKey, outer *key) error {
	b, err := unseal(outer, forDataKey, fields([]byte(record.Store)), record.Sealed)
	var data *key
	if err == nil {
		data, err = newKey(b)
	}
	if err != nil {
		return fmt.Errorf("the key from %s is the right one, but the store's key record is damaged (%w): bring back a backup of the store", v.source, err)
	}
	v.put(record, data)
	return nil
}

func (v *Vault) put(record *spec.SecretKey, data *key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget()
	v.record, v.data = record, data
}

func (v *Vault) lock(record *spec.SecretKey, why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget()
	v.record, v.data, v.locked = record, nil, "secrets are locked: "+why
}

// forget overwrites the keys.
func (v *Vault) forget() {
	v.data.free()
	if v.rotation != nil {
		v.rotation.data.free()
		v.rotation = nil
	}
}

// isLocked is the error of what needs the key. The caller holds v.mu.
func (v *Vault) isLocked() error {
	if v.data != nil {
		return nil
	}
	return errors.Join(errors.New(v.locked), spec.ErrUnavailable)
}

// Unlock opens with a passphrase, or sets the first one. Where the key comes
// from another source, that is asked again, and the passphrase isn't looked at.
func (v *Vault) Unlock(passphrase spec.SecretValue) (*spec.SecretKey, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	v.mu.RLock()
	record, rotating := v.record, v.rotation != nil
	v.mu.RUnlock()
	if rotating {
		return nil, errRotating
	}
	if record == nil && v.source.kind() == kindPassphrase {
		outer, kdf, err := choosePassphrase(passphrase, v.effort)
		if err != nil {
			return nil, err
		}
		defer outer.free()
		return v.begin(outer, kdf)
	}
	if record == nil || record.KDF == nil {
		changed, err := v.load(record)
		if err != nil {
			return nil, err
		}
		v.mu.RLock()
		defer v.mu.RUnlock()
		return changed, v.isLocked()
	}
	outer, err := stretch(passphrase, *record.KDF)
	if err != nil {
		return nil, err
	}
	defer outer.free()
	if !fitting(*record)(outer) {
		return nil, fmt.Errorf("the passphrase is wrong: %w", spec.ErrRefused)
	}
	return nil, v.open(record, outer)
}

// Seal encrypts the value of a version, bound to all that the version says of itself
// but its times.
func (v *Vault) Seal(of spec.SecretVersion, value spec.SecretValue) ([]byte, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.isLocked(); err != nil {
		return nil, err
	}
	if v.rotation != nil && v.rotation.data != nil { // what is sealed now would be missed by it
		return nil, errRotating
	}
	return seal(v.data, forValue, aboutValue(v.record.Store, of), value.Reveal())
}

// Open is the value that Seal was given for this very version. The value is the
// caller's to clear.
func (v *Vault) Open(of spec.SecretVersion) (spec.SecretValue, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.isLocked(); err != nil {
		return spec.SecretValue{}, err
	}
	about := aboutValue(v.record.Store, of)
	value, err := unseal(v.data, forValue, about, of.Sealed)
	if err != nil && v.rotation != nil && v.rotation.data != nil { // saved already, and not finished
		value, err = unseal(v.rotation.data, forValue, about, of.Sealed)
	}
	if err != nil {
		return spec.SecretValue{}, fmt.Errorf("secret %s, version %d, can't be opened: %w; %s, or bring back a backup of the store",
			of.SecretID, of.Version, err, again(of.SecretID))
	}
	return spec.NewSecretValue(value), nil
}

// again is how a secret gets a new value.
func again(id spec.SecretID) string {
	if id.Project == "" {
		return "set it again (`dunnage secret set " + id.Name + "`)"
	}
	return "set it again for project " + id.Project + " (a deploy does, if the manifest has the value)"
}

// newUUID is a random UUID, as RFC 9562 writes its version 4.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
