package inside

import (
	"errors"
	"os"
	"syscall"
)

// Exit codes of a command that could not be run, as in every shell.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

func refusalCode(err error) int {
	var missing notFound
	if errors.As(err, &missing) || errors.Is(err, syscall.ENOENT) {
		return exitNotFound
	}
	return exitNotExecutable
}

// refuse says why a program can't be run, and returns a shell's exit code.
func refuse(program string, err error) int {
	var missing notFound
	if !errors.As(err, &missing) {
		err = &os.PathError{Op: "exec", Path: program, Err: err}
	}
	advice := ""
	if os.Getenv(ExecMark) == "" { // else whoever asked for the program knows it
		advice = advise(err)
	}
	say(err.Error() + advice)
	return refusalCode(err)
}

// advise says what the engine says where the runtime finds the same.
func advise(err error) string {
	switch {
	case refusalCode(err) == exitNotFound:
		return "; the image has no such program: check command: and entrypoint:"
	case errors.Is(err, syscall.EACCES):
		return "; the file is not executable for the container's user, or on a mount with noexec"
	case errors.Is(err, syscall.ENOEXEC):
		return "; the program is for another platform, or a script without #!"
	case errors.Is(err, syscall.E2BIG):
		return "; the kernel takes 128 KiB of one variable or argument, and 2 MiB, as a rule, of all together"
	}
	return ""
}

// complain is for what isn't the program's fault.
func complain(err error) int {
	say(err.Error())
	return exitNotExecutable
}

func say(text string) {
	_, _ = os.Stderr.WriteString("dunnage-init: " + text + "\n") // the exit code says it too
}
