package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"dunnage/spec"
)

// source is where the outer key comes from. Its errors say what to do; the
// vault adds that secrets are locked.
type source interface {
	fmt.Stringer // for people, and the kind first: "file /var/lib/dunnage/secrets.key"
	kind() string

	// first is the key for a store that has none yet.
	first() (*key, error)
	// find is the one of the source's keys that fits, which it puts in its place.
	find(fits func(*key) bool) (*key, error)
	// next is a key that doesn't fit. place, called when the key is in use, puts
	// it where find looks first.
	next(fits func(*key) bool) (k *key, place func() error, err error)
}

// quick is a source that can be looked at in no time.
type quick interface {
	// peek is find, but it changes nothing.
	peek(fits func(*key) bool) (*key, error)
}

// peekFirst is peek for a store that has no key yet; nothing is made.
func peekFirst(s source) (*key, error) {
	switch s := s.(type) {
	case fileSource:
		path, err := resolve(s.path)
		if err != nil {
			return nil, err
		}
		k, err := readKeyFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("the key file %s isn't there yet; `dunnage unlock` makes it, or says why it can't", path)
		}
		return k, err
	case quick:
		return s.peek(func(*key) bool { return true })
	}
	return s.first()
}

// giveUp ends what is said of a key that nobody may have any more.
const giveUp = "; if it is lost for good, `dunnage secret reset-key` begins anew without the secrets"

var errSlow = errors.New("what this source has is seen only by asking it")

// peek looks at a source if that costs nothing; a passphrase is nowhere.
func peek(s source, fits func(*key) bool) (*key, error) {
	switch s := s.(type) {
	case quick:
		return s.peek(fits)
	case passphraseSource:
		return s.find(fits)
	}
	return nil, errSlow
}

// The kinds of sources, as SecretKey.Source has them.
const (
	kindFile       = "file"
	kindCredential = "credential"
	kindPassphrase = "passphrase"
	kindCommand    = "command"
)

func parseSource(text string) (source, error) {
	kind, rest, given := strings.Cut(text, ":")
	switch {
	case kind == kindFile && filepath.IsAbs(rest):
		return fileSource{filepath.Clean(rest)}, nil
	case kind == kindFile:
		return nil, fmt.Errorf("%q: name the key file with an absolute path, as in file:/var/lib/dunnage/secrets.key: %w", text, spec.ErrRefused)
	case kind == kindCredential:
		if !given {
			rest = "dunnage.key"
		}
		if rest == "" || rest != filepath.Base(rest) || rest == "." || rest == ".." {
			return nil, fmt.Errorf("%q: name the credential as the unit does, as in credential:dunnage.key: %w", text, spec.ErrRefused)
		}
		return credentialSource{os.Getenv("CREDENTIALS_DIRECTORY"), rest}, nil
	case kind == kindPassphrase && !given:
		return passphraseSource{}, nil
	case kind == kindCommand:
		argv := strings.Fields(rest)
		if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
			return nil, fmt.Errorf("%q: name the program with an absolute path, as in command:/usr/local/bin/dunnage-key: %w", text, spec.ErrRefused)
		}
		return commandSource{argv, commandTimeout}, nil
	}
	return nil, fmt.Errorf("%q: use file (the key file), file:/PATH, credential, credential:NAME, passphrase or command:/PROGRAM ARGUMENTS: %w", text, spec.ErrRefused)
}

// choose takes the key that is wanted out of some and frees the others.
func choose(keys []*key, wanted func(*key) bool) *key {
	var found *key
	for _, k := range keys {
		if found == nil && wanted(k) {
			found = k
		} else {
			k.free()
		}
	}
	return found
}

func not(fits func(*key) bool) func(*key) bool {
	return func(k *key) bool { return !fits(k) }
}

var nothingToDo = func() error { return nil }

// errOther: which of the two it is can't be told.
var errOther = errors.New("isn't the one that the store was sealed with (or the store's key record is damaged)")
