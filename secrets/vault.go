package secrets

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
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
	from     source    // that opened, while it isn't locked
	locked   string    // why
	rotation *rotation // begun and not ended
}

// NewVault doesn't look at the source yet.
func NewVault(c Config) (*Vault, error) {
	v := &Vault{locked: "secrets are locked: no key was asked for yet", effort: newPassphrase}
	var err error
	if v.source, err = parseSource(c.Source); err != nil {
		return nil, fmt.Errorf("--key-source %w", err)
	}
	if c.Former == "" {
		return v, nil
	}
	if v.former, err = parseSource(c.Former); err != nil {
		return nil, fmt.Errorf("--former-key-source %w", err)
	}
	return v, nil
}

// Status says whether the vault is open, and why it isn't.
func (v *Vault) Status() spec.KeyStatus {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := spec.KeyStatus{Source: v.source.String()}
	if v.data != nil {
		if from := v.from.String(); from != s.Source {
			s.Source, s.Next = from, s.Source
		}
	} else {
		s.Locked = v.locked
		s.Unset = v.record == nil && v.source.kind() == kindPassphrase
		s.Passphrase = s.Unset || v.record != nil && v.record.KDF != nil
	}
	return s
}

// Look is Status, after a look at sources that cost nothing: it finds why the
// vault is locked now, and whether an open one's key is still where it was.
func (v *Vault) Look() spec.KeyStatus {
	var lost string
	if v.turn.TryLock() { // else they are being asked already
		lost = v.look()
		v.turn.Unlock()
	}
	s := v.Status()
	if s.Locked == "" {
		s.Lost = lost
	}
	return s
}

func (v *Vault) look() (lost string) {
	v.mu.RLock()
	record, from, open := v.record, v.from, v.data != nil
	v.mu.RUnlock()
	if open {
		if from, ok := from.(quick); ok {
			k, err := from.peek(fitting(*record))
			if k.free(); err != nil {
				return stillOpen.Replace(err.Error())
			}
		}
		return ""
	}
	if _, slow := v.source.(commandSource); slow {
		return ""
	}
	if _, slow := v.former.(commandSource); slow {
		return ""
	}
	if why := v.why(record); why != "" {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.data == nil {
			v.locked = "secrets are locked: " + why
		}
	}
	return ""
}

// stillOpen takes out what helps only those who are locked out.
var stillOpen = strings.NewReplacer(giveUp, "", ", then `dunnage unlock`", "")

// why says what keeps the vault locked now, "" if that is as it was.
func (v *Vault) why(record *spec.SecretKey) string {
	if record == nil {
		k, err := peekFirst(v.source)
		k.free()
		if err != nil {
			return err.Error()
		}
		return "the store has no key yet, and there is one: `dunnage unlock` takes it"
	}
	k, _, err := v.outer(*record, peek)
	if err != nil {
		return err.Error()
	}
	defer k.free()
	if !opens(*record, k) {
		return "" // the record is damaged, as was said
	}
	return "the key is there again: `dunnage unlock` opens them"
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
	outer, from, err := v.outer(*record, source.find)
	if err != nil {
		v.lock(record, err.Error())
		return nil, nil
	}
	defer outer.free()
	changed := *record
	if from.kind() == v.source.kind() && record.Source != v.source.kind() {
		changed.Source, changed.KDF = v.source.kind(), nil
	}
	if err := v.open(&changed, outer, from); err != nil {
		v.lock(record, err.Error())
		return nil, nil
	}
	if changed.Source == record.Source {
		return nil, nil
	}
	return &changed, nil
}

// outer finds the outer key of the record, and says which source has it.
func (v *Vault) outer(record spec.SecretKey, find func(source, func(*key) bool) (*key, error)) (*key, source, error) {
	fits := fitting(record)
	k, err := find(v.source, fits)
	if err == nil {
		return k, v.source, nil
	}
	var formerErr error
	if v.former != nil {
		if k, formerErr = find(v.former, fits); formerErr == nil {
			return k, v.former, nil
		}
	}
	return nil, nil, v.explain(record, err, formerErr)
}

// explain says what to do where neither source has the record's key.
func (v *Vault) explain(record spec.SecretKey, err, formerErr error) error {
	kind := v.source.kind()
	switch {
	case record.KDF != nil && kind == kindPassphrase:
		return err
	case record.KDF != nil:
		return fmt.Errorf("the store's key is a passphrase, not from --key-source %s; %s; `dunnage secret rotate-key` then moves to %s, or start the agent with --key-source passphrase", kind, askPassphrase, v.source)
	case record.Source == kind:
		return err
	case formerErr != nil && v.former.kind() == record.Source:
		return fmt.Errorf("--former-key-source hasn't the store's key: %w", formerErr)
	}
	text := fmt.Sprintf("the store's key comes from another source (%s) than --key-source %s", record.Source, kind)
	if formerErr != nil {
		text += " and --former-key-source " + v.former.kind()
	}
	text += fmt.Sprintf("; start the agent with --former-key-source %s; `dunnage secret rotate-key` then moves to %s", sourceFlag(record.Source), v.source)
	if kind == kindPassphrase {
		return errors.New(text + giveUp)
	}
	return fmt.Errorf("%s, where the same key would do as well (%w)", text, err)
}

// sourceFlag is the kind as a flag takes it.
func sourceFlag(kind string) string {
	if kind == kindCommand {
		return "'command:/PROGRAM ARGUMENTS'"
	}
	return kind
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
	v.put(&record, data, v.source)
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
func (v *Vault) open(record *spec.SecretKey, outer *key, from source) error {
	b, err := unseal(outer, forDataKey, fields([]byte(record.Store)), record.Sealed)
	var data *key
	if err == nil {
		data, err = newKey(b)
	}
	if err != nil {
		return fmt.Errorf("the key from %s is the right one, but the store's key record is damaged (%w); bring back a backup of the store, or, without one `dunnage secret reset-key` begins anew without the secrets", from, err)
	}
	v.put(record, data, from)
	return nil
}

// opens reports whether the outer key, which fits, opens the record.
func opens(record spec.SecretKey, outer *key) bool {
	b, err := unseal(outer, forDataKey, fields([]byte(record.Store)), record.Sealed)
	clear(b)
	return err == nil && len(b) == keySize
}

func (v *Vault) put(record *spec.SecretKey, data *key, from source) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget()
	v.record, v.data, v.from = record, data, from
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
		return nil, fmt.Errorf("the passphrase is wrong; if nobody knows it any more, `dunnage secret reset-key` begins anew without the secrets: %w", spec.ErrRefused)
	}
	return nil, v.open(record, outer, passphraseSource{})
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
