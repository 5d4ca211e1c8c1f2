package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func ls(args []string) error {
	return filepath.WalkDir(args[0], func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		to := ""
		if d.Type() == fs.ModeSymlink {
			if to, err = os.Readlink(path); err != nil {
				return err
			}
			to = " -> " + to
		}
		fmt.Printf("%v %d %d %s%s\n", info.Mode(), st.Uid, st.Gid, path, to)
		return nil
	})
}

// try does one privileged thing, so that a test sees what the kernel allows.
func try(args []string) error {
	switch args[0] {
	case "chown":
		return os.Chown("/proc/self/exe", 1, 1)
	case "chroot":
		return syscall.Chroot("/")
	case "mknod":
		return syscall.Mknod("/dev/try", syscall.S_IFCHR|0o600, 1<<8|3)
	case "raw":
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_TCP)
		if err == nil {
			err = syscall.Close(fd)
		}
		return err
	case "keyctl": // allowed by no capability, forbidden by the seccomp profile alone
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
		return err
	case "unshare":
		return syscall.Unshare(syscall.CLONE_NEWUSER)
	case "remount": // the mount at a place, writable
		return unix.Mount("", args[1], "", unix.MS_REMOUNT|unix.MS_BIND, "")
	case "setuid":
		return syscall.Setuid(1000)
	}
	return fmt.Errorf("try what? %v", args)
}

func winsize(args []string) error {
	rows, cols := number(args, 0, 0), number(args, 1, 0)
	for range 500 {
		w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return err
		}
		if int(w.Row) == rows && int(w.Col) == cols {
			fmt.Println("size", w.Row, w.Col)
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the terminal never became %d by %d", rows, cols)
}
