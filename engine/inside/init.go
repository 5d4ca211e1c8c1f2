package inside

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Init runs argv as its child, passes signals on to it, reaps what is orphaned,
// and returns the child's exit code: what a first process should do and few
// programs do. When the caller then exits, the kernel ends the rest.
func Init(argv []string) int {
	forward := make(chan os.Signal, 64)
	signal.Notify(forward, forwarded()...)
	child := make(chan os.Signal, 1) // one says as much as many
	signal.Notify(child, syscall.SIGCHLD)
	if err := adoptOrphans(); err != nil { // where it isn't process 1: pid: host
		return complain(err)
	}
	path, err := LookPath(argv[0])
	if err != nil {
		return refuse(argv[0], err)
	}
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: ownGroup(),
	})
	if err != nil {
		return refuse(argv[0], err)
	}
	for {
		select {
		case s := <-forward:
			_ = syscall.Kill(pid, s.(syscall.Signal)) // it may have ended
		case <-child:
			if status, ended := reap(pid); ended {
				return exitCode(status)
			}
		}
	}
}

// reap takes every child that has ended, and reports whether pid has.
func reap(pid int) (own syscall.WaitStatus, ended bool) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if got == pid {
			own, ended = status, true
		}
		if got <= 0 && err != syscall.EINTR {
			return own, ended
		}
	}
}

// forwarded are the signals that are the child's. Those of a fault are our
// own, those of a terminal would stop us, and SIGURG is the Go runtime's.
func forwarded() []os.Signal {
	own := map[syscall.Signal]bool{
		syscall.SIGKILL: true, syscall.SIGSTOP: true, syscall.SIGCHLD: true, syscall.SIGURG: true,
		syscall.SIGTTIN: true, syscall.SIGTTOU: true,
		syscall.SIGSEGV: true, syscall.SIGBUS: true, syscall.SIGFPE: true, syscall.SIGILL: true,
		syscall.SIGTRAP: true, syscall.SIGABRT: true, syscall.SIGSYS: true,
	}
	var all []os.Signal
	const last = 64 // SIGRTMAX
	for s := syscall.Signal(1); s <= last; s++ {
		if !own[s] {
			all = append(all, s)
		}
	}
	return all
}

// ownGroup gives the child a process group, and the terminal, if there is one:
// a shell's job control needs both.
func ownGroup() *syscall.SysProcAttr {
	_, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return &syscall.SysProcAttr{Setpgid: true, Foreground: err == nil, Ctty: 0}
}
