package secrets

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	maxKeyText     = 4 << 10 // bytes of what holds keys
	commandTimeout = 10 * time.Second
)

// commandSource is a program that prints the key: a client of a key service or
// of a hardware module. It may print several keys, a line each: one of a
// rotation that was interrupted is then still there.
type commandSource struct {
	argv    []string
	timeout time.Duration
}

func (s commandSource) kind() string   { return kindCommand }
func (s commandSource) String() string { return "command " + s.argv[0] }

func (s commandSource) first() (*key, error) {
	keys, err := s.run()
	if err != nil {
		return nil, err
	}
	return choose(keys, func(*key) bool { return true }), nil
}

func (s commandSource) find(fits func(*key) bool) (*key, error) {
	keys, err := s.run()
	if err != nil {
		return nil, err
	}
	if k := choose(keys, fits); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("the key that %s prints %w; let it print the right one, on a line of its own beside a newer one if need be, then `dunnage unlock`%s", s.argv[0], errOther, giveUp)
}

func (s commandSource) next(fits func(*key) bool) (*key, func() error, error) {
	keys, err := s.run()
	if err != nil {
		return nil, nil, err
	}
	if k := choose(keys, not(fits)); k != nil {
		return k, nothingToDo, nil
	}
	return nil, nil, fmt.Errorf("%s prints the key in use: let it print a new one first, and the one in use on a second line until the rotation is done", s.argv[0])
}

// run gives the command what time it may take, and kills it with its children then.
func (s commandSource) run() ([]*key, error) {
	keys, err := s.keys()
	if err != nil {
		return nil, fmt.Errorf("the key command %s: %w; see that it works, then `dunnage unlock`", s.argv[0], err)
	}
	return keys, nil
}

func (s commandSource) keys() ([]*key, error) {
	out, in, err := os.Pipe() // not a buffer of exec's, which would keep a copy
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := out.SetReadDeadline(time.Now().Add(s.timeout)); err != nil {
		in.Close()
		return nil, err
	}
	var complaint head
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	cmd.Stdout, cmd.Stderr = in, &complaint
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	in.Close()
	if err != nil {
		return nil, err
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // it may be gone
	stuck := time.AfterFunc(s.timeout+time.Second, kill)                   // its output closed, and running
	text, err := readSmall(out, maxKeyText)
	defer text.free()
	if err != nil {
		kill()
	}
	ended := cmd.Wait()
	stuck.Stop()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("no key within %v", s.timeout)
	case err != nil:
		return nil, fmt.Errorf("its output: %w", err)
	case ended != nil && !errors.Is(ended, exec.ErrWaitDelay): // that is a child of its, with its standard error
		return nil, complaint.explain(ended)
	}
	return anyKeys(text.read)
}

// head keeps the beginning of what is written to it.
type head struct{ kept []byte }

func (h *head) Write(b []byte) (int, error) {
	h.kept = append(h.kept, b[:min(len(b), 1<<10-len(h.kept))]...)
	return len(b), nil
}

// explain adds the first line that the command wrote to its standard error.
func (h *head) explain(err error) error {
	line, _, _ := strings.Cut(strings.TrimSpace(string(h.kept)), "\n")
	if line == "" {
		return err
	}
	return fmt.Errorf("%w: %.200s", err, strings.ToValidUTF8(line, "?"))
}
