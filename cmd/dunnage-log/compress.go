package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"dunnage/engine/logwriter"
)

// The first arguments of the process that compresses a log, of descriptor 0 into
// 1: before and after it has stepped back. The shim's never begin like that.
const (
	compressVerb = "-compress"
	steppedBack  = "-compress-idle"
)

// compression is such a process.
type compression struct {
	process *os.Process
	turn    *os.File // held until it has ended
}

// startCompression runs this program anew: it takes a megabyte that the log
// writer shall not keep, and works when nothing else wants the CPU.
func startCompression(to, from *os.File, room int64) (logwriter.Compression, error) {
	turn, err := takeTurn()
	if err != nil {
		return nil, err
	}
	p, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], compressVerb, strconv.FormatInt(room, 10)},
		&os.ProcAttr{Dir: "/", Files: []*os.File{from, to, os.Stderr}})
	if err != nil {
		return nil, errors.Join(err, turn.Close())
	}
	return compression{p, turn}, nil
}

// takeTurn lets one log of the host be compressed at a time. Who compresses
// holds a lock on the program's own file, which all log writers have in common.
func takeTurn() (*os.File, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = logwriter.ErrBusy
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (c compression) Kill() { _ = c.process.Kill() } // it may have ended

func (c compression) Wait() error {
	state, err := c.process.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("the compression: %v", state)
	}
	return errors.Join(err, c.turn.Close())
}

// compress is what that process does. What it wrote is on the disk when it
// succeeds.
func compress(verb, room string) error {
	if verb != steppedBack {
		return stepBack(room)
	}
	n, err := strconv.ParseUint(room, 10, 63)
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		return err
	}
	from, to := os.NewFile(0, "log"), os.NewFile(1, "compressed log")
	if err := logwriter.Compress(to, from); err != nil {
		return err
	}
	return to.Sync()
}

// stepBack takes the lowest priorities that there are and begins anew: they are
// a thread's, and the runtime has several by now. Without them it works as well.
func stepBack(room string) error {
	const ioprioWhoProcess, ioprioIdle = 1, 3 << 13
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_IDLE}, 0)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle)
	return syscall.Exec("/proc/self/exe", []string{os.Args[0], steppedBack, room}, []string{"GOMAXPROCS=1"})
}
