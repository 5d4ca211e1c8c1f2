package secrets

import (
	"errors"
	"fmt"
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
		return nil, fmt.Errorf("key source %q: name the key file with an absolute path, as in file:/var/lib/dunnage/secrets.key: %w", text, spec.ErrRefused)
	case kind == kindCredential:
		if !given {
			rest = "dunnage.key"
		}
		if rest == "" || rest != filepath.Base(rest) || rest == "." || rest == ".." {
			return nil, fmt.Errorf("key source %q: name the credential as the unit does, as in credential:dunnage.key: %w", text, spec.ErrRefused)
		}
		return credentialSource{os.Getenv("CREDENTIALS_DIRECTORY"), rest}, nil
	case kind == kindPassphrase && !given:
		return passphraseSource{}, nil
	case kind == kindCommand:
		argv := strings.Fields(rest)
		if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
			return nil, fmt.Errorf("key source %q: name the program with an absolute path, as in command:/usr/local/bin/dunnage-key: %w", text, spec.ErrRefused)
		}
		return commandSource{argv, commandTimeout}, nil
	}
	return nil, fmt.Errorf("key source %q: use file:PATH, credential, credential:NAME, passphrase or command:PATH ARGUMENTS: %w", text, spec.ErrRefused)
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
