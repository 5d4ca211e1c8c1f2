package secrets

import (
	"crypto/rand"
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"dunnage/spec"
)

// newPassphrase is Argon2id's effort for a new passphrase: RFC 9106's second
// recommended choice, for hosts that can't give it 2 GiB.
var newPassphrase = spec.KDF{Time: 3, Memory: 64 << 10, Threads: 4}

const (
	minPassphrase = 8 // characters

	// What a record may ask for: a damaged one must not take the host's memory.
	maxKDFTime    = 32
	maxKDFMemory  = 512 << 10 // KiB
	maxKDFThreads = 16
)

const askPassphrase = "`dunnage unlock` opens them with the passphrase"

// passphraseSource is what somebody types after each start of the agent.
type passphraseSource struct{}

func (passphraseSource) kind() string   { return kindPassphrase }
func (passphraseSource) String() string { return kindPassphrase }

func (passphraseSource) first() (*key, error) {
	return nil, errors.New("no passphrase was set yet; `dunnage unlock` sets it")
}

func (passphraseSource) find(func(*key) bool) (*key, error) {
	return nil, errors.New("nobody has entered the passphrase; " + askPassphrase)
}

func (passphraseSource) next(func(*key) bool) (*key, func() error, error) {
	return nil, nil, errors.New("nobody has entered the passphrase; " + askPassphrase)
}

// choosePassphrase makes a key of a new passphrase.
func choosePassphrase(p spec.SecretValue, effort spec.KDF) (*key, *spec.KDF, error) {
	if utf8.RuneCount(p.Reveal()) < minPassphrase {
		return nil, nil, fmt.Errorf("the passphrase is shorter than %d characters: choose a longer one: %w", minPassphrase, spec.ErrRefused)
	}
	effort.Salt = make([]byte, saltSize)
	rand.Read(effort.Salt)
	k, err := stretch(p, effort)
	return k, &effort, err
}

// stretch makes the outer key of a passphrase.
func stretch(p spec.SecretValue, kdf spec.KDF) (*key, error) {
	if kdf.Time < 1 || kdf.Time > maxKDFTime || kdf.Memory > maxKDFMemory ||
		kdf.Threads < 1 || kdf.Threads > maxKDFThreads || len(kdf.Salt) < 8 || len(kdf.Salt) > 1<<10 {
		return nil, errors.New("the store's key record is damaged: it asks for an impossible effort for the passphrase; bring back a backup of the store")
	}
	return newKey(argon2.IDKey(p.Reveal(), kdf.Salt, kdf.Time, kdf.Memory, kdf.Threads, keySize))
}
