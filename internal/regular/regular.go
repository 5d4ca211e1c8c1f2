// Package regular opens files of the agent's own. What else may lie in such a file's
// place mustn't hold the agent up: to open a FIFO waits for who is at its other end.
package regular

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Open is os.OpenFile that fails at once for what is no regular file.
func Open(path string, flag int, perm os.FileMode) (*os.File, error) {
	strange := fmt.Errorf("%s is no regular file: move it away", path)
	f, err := os.OpenFile(path, flag|syscall.O_NONBLOCK, perm)
	if errors.Is(err, syscall.ENXIO) { // a FIFO that nobody reads, or a socket
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
