package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sshCommand is what a connection over ssh runs at the far end: it joins its
// standard streams to the agent's socket there.
const sshCommand = "dunnage dial-stdio"

// sshDialer makes connections by running ssh, one process a connection, so
// that the user's own keys, agents, jump hosts and known_hosts apply.
func sshDialer(host string, u *url.URL) (dialer, error) {
	args, err := sshArgs(host, u)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) { return dialCommand(ctx, host, "ssh", args) }, nil
}

func sshArgs(host string, u *url.URL) ([]string, error) {
	if u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") || strings.HasPrefix(u.User.Username(), "-") {
		return nil, hostError(host, "the name of the machine is missing or starts with a dash")
	}
	if _, has := u.User.Password(); has {
		return nil, hostError(u.Redacted(), "a password in it would be seen in the process list: use a key")
	}
	args := []string{"-T", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"}
	if u.Port() != "" {
		args = append(args, "-p", u.Port())
	}
	if u.User.Username() != "" {
		args = append(args, "-l", u.User.Username())
	}
	command := sshCommand
	if path := strings.TrimSuffix(u.Path, "/"); path != "" {
		command = "DUNNAGE_HOST=" + shellQuote("unix://"+path) + " " + sshCommand
	}
	return append(args, "--", u.Hostname(), command), nil
}

// shellQuote makes text one word for a POSIX shell.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// dialCommand starts a program whose standard streams are the connection. It
// outlives ctx, which is only for the start: http.Transport keeps connections.
func dialCommand(ctx context.Context, host, name string, args []string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd := exec.Command(name, args...)
	c := &commandConn{cmd: cmd, host: host}
	cmd.Stderr = &c.stderr
	cmd.WaitDelay = time.Second // for a stderr that ssh's own children keep open
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", name, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, &NoAgentError{Host: host, Cause: err, Next: "install an ssh client"}
	}
	c.in, c.out = in, out
	return c, nil
}

// commandConn is a running program as a connection. Deadlines aren't
// supported; http.Transport uses none.
type commandConn struct {
	cmd    *exec.Cmd
	host   string
	in     io.WriteCloser
	out    io.ReadCloser
	stderr firstBytes
	once   sync.Once
	read   atomic.Bool // something has arrived
}

func (c *commandConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if n > 0 {
		c.read.Store(true)
	}
	if err != nil && !c.read.Load() {
		return n, c.failed()
	}
	return n, err
}

// Write fails as Read does: which of the two http.Transport hears of first,
// and so reports, is chance.
func (c *commandConn) Write(p []byte) (int, error) {
	n, err := c.in.Write(p)
	if err != nil && !c.read.Load() {
		return n, c.failed()
	}
	return n, err
}

// failed says why the program ended before it sent anything.
func (c *commandConn) failed() error {
	_ = c.Close() // collects stderr to its end
	cause := errors.New(c.cmd.String() + " ended without a word")
	if text := c.stderr.String(); text != "" {
		cause = errors.New(text)
	}
	return &NoAgentError{Host: c.host, Cause: cause, Next: "try `ssh` by hand, and check that dunnage is installed there and its agent runs"}
}

// Close ends the program and reaps it.
func (c *commandConn) Close() error {
	c.once.Do(func() {
		_ = c.in.Close() // dial-stdio ends with its input
		t := time.AfterFunc(time.Second, func() { _ = c.cmd.Process.Kill() })
		defer t.Stop()
		_ = c.cmd.Wait() // its status says nothing that stderr doesn't
	})
	return nil
}

func (c *commandConn) LocalAddr() net.Addr              { return commandAddr(c.host) }
func (c *commandConn) RemoteAddr() net.Addr             { return commandAddr(c.host) }
func (c *commandConn) SetDeadline(time.Time) error      { return nil }
func (c *commandConn) SetReadDeadline(time.Time) error  { return nil }
func (c *commandConn) SetWriteDeadline(time.Time) error { return nil }

type commandAddr string

func (commandAddr) Network() string  { return "ssh" }
func (a commandAddr) String() string { return string(a) }

// firstBytes keeps the beginning of what a program says.
type firstBytes struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (f *firstBytes) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if room := 4096 - f.buf.Len(); room > 0 {
		f.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// String is the text in one line.
func (f *firstBytes) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(strings.Fields(f.buf.String()), " ")
}
