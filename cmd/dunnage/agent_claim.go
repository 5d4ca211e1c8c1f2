package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"dunnage/internal/regular"
)

// claimPatience is how long a killed agent may still seem to run: a child that it
// was about to start holds its sockets and files until it executes its program.
const claimPatience = 2 * time.Second

// claim tries as long as somebody else has it, which the error busy says.
func claim(busy error, try func() error) error {
	err := try()
	for end := time.Now().Add(claimPatience); errors.Is(err, busy) && time.Now().Before(end); err = try() {
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// claimNetwork makes this agent the only one of its network namespace: two would
// take each other's rules for damage. An abstract socket belongs to the
// namespace and ends with the process, however it ends.
func claimNetwork() (l net.Listener, err error) {
	err = claim(syscall.EADDRINUSE, func() error {
		l, err = net.Listen("unix", "@dunnage-agent")
		return err
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.New("another agent runs in this network namespace, and both would own the same rules; stop it, or start this one in a namespace of its own")
	}
	if err != nil {
		return nil, fmt.Errorf("claim the network namespace: %w", err)
	}
	return l, nil
}

// claimRunDir makes the run directory, and this agent the only one that uses it: one
// in another network namespace, with another state directory, would still share its
// containerd and its replicas' namespaces. The lock ends with the process. Let go of,
// a directory that was made here and got nothing in it is removed: the agent refused
// to start.
func claimRunDir(dir string) (release func(), err error) {
	_, err = os.Lstat(dir)
	made := errors.Is(err, fs.ErrNotExist)
	if err := regular.MkdirThrough(dir, 0o711); err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open run directory: %w", err)
	}
	err = claim(syscall.EWOULDBLOCK, func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("run directory %s is in use: another agent runs with it; stop it, or give this one its own --run-dir, --state-dir and --pool", dir)
	} else if err != nil {
		err = fmt.Errorf("lock run directory %s: %w", dir, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		if made {
			_ = syscall.Rmdir(dir)
		}
		_ = f.Close() // it was only read
	}, nil
}

// gcPercent trades a little memory for CPU: the agent's heap is small, and each
// look and probe leaves garbage.
const gcPercent = 150

// sabotagedStart is longer than a recovery may take.
const sabotagedStart = 3 * time.Second
