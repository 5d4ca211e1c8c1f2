// Package regular opens files of the agent's own. What else may lie in such a file's
// place mustn't hold the agent up: to open a FIFO waits for who is at its other end.
// Nor must it lead the agent to files of others: what is written doesn't follow a link.
package regular

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Open is os.OpenFile that fails at once for what is no regular file, and follows a
// link only to read.
func Open(path string, flag int, perm os.FileMode) (*os.File, error) {
	strange := fmt.Errorf("%s is no regular file: move it away", path)
	if flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE|os.O_TRUNC) != 0 {
		flag |= syscall.O_NOFOLLOW
	}
	f, err := os.OpenFile(path, flag|syscall.O_NONBLOCK, perm)
	if errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ELOOP) { // a FIFO that nobody reads or a socket, a link
		return nil, strange
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = strange
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// MkdirAll is MkdirThrough that doesn't take a link for the directory, though it does
// for those above: what is made in it would be among the files of others.
func MkdirAll(path string, perm os.FileMode) error {
	err := MkdirThrough(path, perm)
	if info, linkErr := os.Lstat(path); linkErr == nil && !info.IsDir() {
		return noDirectory(path)
	}
	return err
}

// MkdirThrough is os.MkdirAll, which takes a link to a directory for one: its owner may
// have put it on another disk. It says what is wrong with what is in the way, and of a
// link where it leads.
func MkdirThrough(path string, perm os.FileMode) error {
	err := os.MkdirAll(path, perm)
	var at *os.PathError
	switch {
	case !errors.As(err, &at):
	case errors.Is(err, syscall.ENOTDIR):
		return noDirectory(at.Path)
	case errors.Is(err, syscall.EEXIST):
		if target, linkErr := os.Readlink(at.Path); linkErr == nil {
			return fmt.Errorf("%s is a link to %s, which isn't there: mount it or remove the link", at.Path, target)
		}
	}
	return err
}

func noDirectory(path string) error { return fmt.Errorf("%s is no directory: move it away", path) }

// ReadFile is os.ReadFile for a regular file.
func ReadFile(path string) ([]byte, error) {
	f, err := Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// WriteFile is os.WriteFile for a regular file.
func WriteFile(path string, content []byte, perm os.FileMode) error {
	f, err := Open(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}
