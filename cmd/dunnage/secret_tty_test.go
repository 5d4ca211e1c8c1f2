package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo-terminal: what is typed goes into master.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return master, terminal
}

func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// TestInterruptedPrompt: Ctrl-C or Ctrl-D while a value is asked for ends the program, and
// the terminal shows again what is typed.
func TestInterruptedPrompt(t *testing.T) {
	for name, typed := range map[string]string{"Ctrl-C": "hunt\x03", "Ctrl-D": "\x04"} {
		t.Run(name, func(t *testing.T) { testInterruptedPrompt(t, typed) })
	}
}

func testInterruptedPrompt(t *testing.T, typed string) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	master, terminal := openTerminal(t)
	cmd := exec.Command(self)
	cmd.Args = []string{"dunnage", "-H", "unix:///nonexistent.sock", "secret", "set", "db-password"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended, unless the test failed
	var shown bytes.Buffer
	for buf := make([]byte, 256); !bytes.HasSuffix(shown.Bytes(), []byte("value of db-password: ")); {
		n, err := master.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, shown.String())
		}
		shown.Write(buf[:n])
	}
	for deadline := time.Now().Add(10 * time.Second); echoes(t, terminal); time.Sleep(time.Millisecond) { // it asks, then hides
		if time.Now().After(deadline) {
			t.Fatal("what is typed is shown")
		}
	}
	if _, err := master.Write([]byte(typed)); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("ended with %v, want exit code %d", err, exitInterrupted)
	}
	if !echoes(t, terminal) {
		t.Error("the terminal is left without echo")
	}
}
