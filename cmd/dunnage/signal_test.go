package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestSignalsEndWhatIsBlocked: one signal ends a command that waits for the other
// end of a FIFO, where it can't look at its context; a second one does at once.
func TestSignalsEndWhatIsBlocked(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const manifest = "name: shop\nservices: {web: {image: web:1}}\n"
	for name, c := range map[string]struct {
		as      string // TestMain goes by this name
		args    []string
		first   string // written to the FIFO before, which is then closed: empty = it is held
		signals []syscall.Signal
		code    int // 0 = either: two at once come in any order
	}{
		"an open":       {"dunnage", []string{"plan", "-f", "fifo", "-f", "next"}, manifest, []syscall.Signal{syscall.SIGTERM}, 143},
		"a manifest":    {"dunnage", []string{"plan", "-f", "fifo"}, "", []syscall.Signal{syscall.SIGINT}, 130},
		"variables":     {"dunnage", []string{"--env-file", "fifo", "plan", "-f", "compose.yaml"}, "", []syscall.Signal{syscall.SIGTERM}, 143},
		"second signal": {"dunnage-agent", []string{"plan", "-f", "fifo"}, "", []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, name := range []string{"fifo", "next"} {
				if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(manifest), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self, c.args...)
			cmd.Args[0], cmd.Dir = c.as, dir
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() { _ = cmd.Process.Kill() }) // where it has ended, there is nothing to do
			w := readerComes(t, filepath.Join(dir, "fifo"))
			defer w.Close()
			if c.first != "" {
				if _, err := w.WriteString(c.first); err != nil {
					t.Fatal(err)
				}
				w.Close()
			}
			for _, s := range c.signals {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case err := <-ended:
				var exit *exec.ExitError
				if !errors.As(err, &exit) || c.code != 0 && exit.ExitCode() != c.code || exit.ExitCode() < 130 {
					t.Errorf("%v, want exit code %d", err, c.code)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it goes on")
			}
		})
	}
}

// readerComes opens a FIFO for writing as soon as somebody reads it.
func readerComes(t *testing.T, path string) *os.File {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		w, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			return w
		}
		if !errors.Is(err, syscall.ENXIO) {
			t.Fatal(err)
		}
	}
	t.Fatal("nobody reads " + path)
	return nil
}
