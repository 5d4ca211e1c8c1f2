package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// dialTimeout is for the connection to a socket of this machine.
const dialTimeout = 5 * time.Second

// Dial makes a client for host, which is "unix:///path/to.sock" (empty =
// DefaultHost), or "ssh://[user@]host[:port][/path/to.sock]". It doesn't
// connect: the first request does, and returns a NoAgentError when nobody is
// there. self is the version of the calling program.
func Dial(host string, self Version) (*Client, error) {
	if host == "" {
		host = DefaultHost
	}
	u, err := url.Parse(host)
	if err != nil {
		return nil, hostError(host, "it is not a URL")
	}
	var dial dialer
	switch u.Scheme {
	case "unix":
		dial, err = unixDialer(host)
	case "ssh":
		dial, err = sshDialer(host, u)
	default:
		err = hostError(host, "it starts neither with unix:// nor with ssh://")
	}
	if err != nil {
		return nil, err
	}
	c := newClient(host, self, dial)
	if u.Scheme == "unix" {
		c.socket = strings.TrimPrefix(host, "unix://")
	}
	return c, nil
}

// dialer makes one connection to an agent.
type dialer func(context.Context) (net.Conn, error)

func newClient(host string, self Version, dial dialer) *Client {
	return &Client{host: host, agent: self.userAgent(), patience: silentTime, http: &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression: true,
		IdleConnTimeout:    30 * time.Second,
		MaxIdleConns:       4,
	}}}
}

func hostError(host, why string) error {
	return fmt.Errorf("host %q: %s: use unix:///path/to/agent.sock or ssh://user@host: %w", host, why, ErrInvalid)
}

func unixDialer(host string) (dialer, error) {
	path := strings.TrimPrefix(host, "unix://")
	if !filepath.IsAbs(path) {
		return nil, hostError(host, "the path of the socket is not absolute")
	}
	return func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		conn, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, noAgent(host, path, err)
		}
		return conn, nil
	}, nil
}

// noAgent explains a socket that can't be connected to.
func noAgent(host, path string, err error) error {
	e := &NoAgentError{Host: host, Cause: err, Next: "start one with `dunnage agent`, or say where it is with --host or DUNNAGE_HOST"}
	var op *net.OpError
	if errors.As(err, &op) {
		e.Cause = op.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Cause = fmt.Errorf("there is no such socket (%w)", syscall.ENOENT)
	case errors.Is(err, syscall.ECONNREFUSED) && !isSocket(path):
		e.Cause = fmt.Errorf("%s is not a socket (%w)", path, syscall.ECONNREFUSED)
		e.Next = "move it away: an agent that runs makes its socket there again; or say where the agent is with --host or DUNNAGE_HOST"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Cause = fmt.Errorf("the socket is there, but nobody listens (%w)", syscall.ECONNREFUSED)
	case errors.Is(err, fs.ErrPermission):
		e.Cause = fmt.Errorf("this user may not use the socket (%w)", syscall.EACCES)
		e.Next = "run it as root, or join the group that owns the socket"
	}
	return e
}

// isSocket reports whether a socket is there. The kernel refuses a connection to
// any other file as it refuses one to a socket without a listener.
func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() == fs.ModeSocket
}
