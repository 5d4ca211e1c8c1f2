package inside

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// HoldInput becomes argv, with a standard input on which nothing comes and
// which doesn't end. It returns an exit code if it can't.
func HoldInput(argv []string) int {
	path, err := LookPath(argv[0])
	if err != nil {
		return refuse(argv[0], err)
	}
	if err := endlessInput(); err != nil {
		return complain(err)
	}
	return refuse(argv[0], syscall.Exec(path, argv, os.Environ()))
}

// endlessInput makes standard input a pipe with both ends in one descriptor: as
// long as somebody can read it, somebody could write to it.
func endlessInput() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	both, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(r.Fd())), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open a pipe", err)
	}
	defer unix.Close(both)
	return os.NewSyscallError("dup3", unix.Dup3(both, 0, 0))
}
