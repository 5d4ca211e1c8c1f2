package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// credentialSource is a credential of the agent's systemd unit, which systemd
// may have decrypted with the host's TPM. Only the unit changes it: the new key
// of a rotation is a second credential, NAME.new, and stays there until the unit
// names it NAME.
type credentialSource struct{ dir, name string }

func (s credentialSource) kind() string   { return kindCredential }
func (s credentialSource) String() string { return "credential " + s.name }

func (s credentialSource) first() (*key, error) { return s.read("") }

func (s credentialSource) find(fits func(*key) bool) (*key, error) { return s.peek(fits) }

func (s credentialSource) peek(fits func(*key) bool) (*key, error) {
	k, err := s.read("")
	if err == nil && fits(k) {
		return k, nil
	}
	k.free()
	if k, err := s.read(".new"); err == nil {
		if fits(k) {
			return k, nil
		}
		k.free()
	}
	if err == nil {
		err = fmt.Errorf("the key in credential %s %w; let the unit load the right one, then restart the agent%s", s.name, errOther, giveUp)
	}
	return nil, err
}

func (s credentialSource) next(fits func(*key) bool) (*key, func() error, error) {
	k, err := s.read(".new")
	if err == nil && fits(k) {
		k.free()
		return nil, nil, fmt.Errorf("credential %s.new is the key in use: let the unit load it as %s and restart the agent, then rotate again", s.name, s.name)
	}
	if err != nil {
		if k, err = s.read(""); err == nil && fits(k) {
			k.free()
			err = fmt.Errorf("there is no new key: let the unit load one as credential %s.new (`openssl rand -hex 32` makes one) and restart the agent, then rotate again", s.name)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return k, nothingToDo, nil
}

func (s credentialSource) read(suffix string) (*key, error) {
	if s.dir == "" {
		return nil, errors.New("the agent has no credentials: $CREDENTIALS_DIRECTORY isn't set; start it by a systemd unit with LoadCredential= or LoadCredentialEncrypted=" + s.name)
	}
	f, err := os.Open(filepath.Join(s.dir, s.name+suffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the agent's unit has no credential %s; add LoadCredential= or LoadCredentialEncrypted= for it and restart the agent", s.name+suffix)
	}
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	defer f.Close()
	text, err := readSmall(f, maxKeyText)
	if err != nil {
		return nil, fmt.Errorf("credential %s: %w", s.name+suffix, err)
	}
	defer text.free()
	keys, err := anyKeys(text.read)
	if err != nil {
		return nil, fmt.Errorf("credential %s: %w", s.name+suffix, err)
	}
	freeAll(keys[1:])
	return keys[0], nil
}
