package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"dunnage/internal/fault"
)

// SocketMode lets root and the socket's group connect.
const SocketMode fs.FileMode = 0o660

// maxSocketPath is the room in sockaddr_un (108 bytes with the final zero),
// less what the temporary name adds.
const maxSocketPath = 107 - len(socketSuffix)

const socketSuffix = ".new"

// Listen makes the agent's socket at path with SocketMode and, unless gid is
// -1, that group. It appears under its name only with the right mode, by a
// rename: a client can never connect through a laxer one. A socket that nobody
// listens on is replaced; one with a living agent behind it is an error.
func Listen(path string, gid int) (net.Listener, error) {
	if err := CheckSocket(path); err != nil {
		return nil, err
	}
	l, err := listenAs(path+socketSuffix, gid)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := fault.Do("socket rename", func() error { return os.Rename(path+socketSuffix, path) }); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close(), os.Remove(path+socketSuffix))
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return &listener{UnixListener: l, path: path, info: info}, nil
}

// CheckSocket says, and changes nothing, why Listen would refuse the path: it is too
// long, an agent listens there, or what is there isn't a socket.
func CheckSocket(path string) error {
	if len(path) > maxSocketPath {
		return fmt.Errorf("listen on %s: the path has %d bytes, a unix socket's may have %d: choose a shorter --socket or --run-dir", path, len(path), maxSocketPath)
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: a %s is in the way: remove it or choose another --socket", path, describe(info))
	}
	conn, err := net.DialTimeout("unix", path, 2*time.Second)
	if err == nil {
		_ = conn.Close() // it only had to be accepted
		return fmt.Errorf("listen on %s: another agent listens there: stop it, or give this one its own --run-dir, --state-dir and --pool", path)
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil // stale: its process is gone
	}
	return fmt.Errorf("listen on %s: can't tell whether the socket there is in use: %w", path, err)
}

func describe(info fs.FileInfo) string {
	if info.IsDir() {
		return "directory"
	}
	return "file"
}

// listenAs binds path, which nobody knows yet, and gives it its mode and group.
func listenAs(path string, gid int) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the name changes; see listener.Close
	if err = os.Chmod(path, SocketMode); err == nil && gid >= 0 {
		err = os.Chown(path, -1, gid)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(path))
	}
	return l, nil
}

// listener removes its socket when closed, unless another agent has put its
// own there meanwhile.
type listener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
	err  error
}

func (l *listener) Close() error {
	l.once.Do(func() {
		now, err := os.Lstat(l.path)
		if err == nil && os.SameFile(now, l.info) {
			err = os.Remove(l.path)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		l.err = errors.Join(err, l.UnixListener.Close())
	})
	return l.err
}
