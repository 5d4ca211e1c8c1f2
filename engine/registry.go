package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"

	"dunnage/spec"
)

// registry makes a resolver with the credentials and hosts files as they are
// now: `docker login` needs no restart of the agent. waits hears of requests that take
// long; it may be nil.
func (e *Engine) registry(ctx context.Context, waits func(what string)) (remotes.Resolver, error) {
	if _, err := dockerconfig.Load(e.dockerDir()); err != nil { // damaged: don't go on without
		return nil, fmt.Errorf("read Docker's credentials: %w", err)
	}
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: config.ConfigureHosts(ctx, config.HostOptions{
			HostDir:     config.HostDirFromRoot(e.cfg.HostsDir),
			Credentials: e.credentials,
			UpdateClient: func(c *http.Client) error {
				c.Transport = idleTransport{c.Transport, e.cfg.PullIdle, waits}
				return nil
			},
		}),
	}), nil
}

func (e *Engine) dockerDir() string {
	if e.cfg.DockerConfig != "" {
		return e.cfg.DockerConfig
	}
	return dockerconfig.Dir()
}

func (e *Engine) dockerFile() string {
	return filepath.Join(e.dockerDir(), dockerconfig.ConfigFileName)
}

// credentials looks a host up as the docker command does, with credential
// helpers. An identity token stands as a secret without a user.
func (e *Engine) credentials(host string) (user, secret string, err error) {
	file, err := dockerconfig.Load(e.dockerDir())
	if err != nil {
		return "", "", err
	}
	if host == "registry-1.docker.io" {
		host = "https://index.docker.io/v1/" // the key that docker login writes for Docker Hub
	}
	auth, err := e.askHelper(file, host)
	if err != nil {
		return "", "", fmt.Errorf("credentials for %s from %s: %w", host, e.dockerFile(), err)
	}
	if auth.IdentityToken != "" {
		return "", auth.IdentityToken, nil
	}
	return auth.Username, auth.Password, nil
}

// askHelper gives up on a credential helper that hangs: Docker's library waits
// for the program for ever, and a pull with it.
func (e *Engine) askHelper(file *configfile.ConfigFile, host string) (types.AuthConfig, error) {
	type answer struct {
		auth types.AuthConfig
		err  error
	}
	done := make(chan answer, 1)
	go func() { // ends with the program
		auth, err := file.GetAuthConfig(host)
		done <- answer{auth, err}
	}()
	select {
	case a := <-done:
		return a.auth, a.err
	case <-time.After(e.cfg.PullIdle):
		return types.AuthConfig{}, fmt.Errorf("the credential helper doesn't answer within %s: %w", e.cfg.PullIdle, spec.ErrUnavailable)
	}
}

// errStalled: the registry keeps the connection but sends nothing.
var errStalled = errors.New("no data from the registry")

// idleTransport gives up on a request that gets no byte for a while. The clock
// runs only while a byte is waited for, not while the disk or another pull is.
type idleTransport struct {
	next  http.RoundTripper
	idle  time.Duration
	waits func(what string) // told what a request waits for; nil = nobody
}

// tellAfter is how long a request has no answer before somebody is told.
const tellAfter = 5 * time.Second

func (t idleTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(t.idle, func() { cancel(errStalled) })
	asked := ctx
	if t.waits != nil {
		var step requestStep
		asked = httptrace.WithClientTrace(ctx, step.trace(r.URL.Host))
		tell := time.AfterFunc(min(tellAfter, t.idle/2), func() { t.waits(step.String()) })
		defer tell.Stop()
	}
	resp, err := t.next.RoundTrip(r.WithContext(asked))
	timer.Stop()
	if err != nil {
		err = stalled(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &idleBody{resp.Body, ctx, cancel, t.idle}
	return resp, nil
}

// requestStep is how far a request has come, in words.
type requestStep struct{ text atomic.Pointer[string] }

func (s *requestStep) String() string {
	if t := s.text.Load(); t != nil {
		return *t
	}
	return "waits for a connection"
}

func (s *requestStep) trace(host string) *httptrace.ClientTrace {
	at := func(text string) { s.text.Store(&text) }
	at("waits for a connection to " + host)
	return &httptrace.ClientTrace{
		DNSStart:          func(i httptrace.DNSStartInfo) { at("looks up the name " + i.Host) },
		ConnectStart:      func(_, addr string) { at("connects to " + host + " at " + addr) },
		TLSHandshakeStart: func() { at("agrees on TLS with " + host) },
		GotConn:           func(httptrace.GotConnInfo) { at("waits for an answer of " + host) },
	}
}

type idleBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	idle   time.Duration
}

func (b *idleBody) Read(p []byte) (int, error) {
	timer := time.AfterFunc(b.idle, func() { b.cancel(errStalled) })
	defer timer.Stop()
	n, err := b.ReadCloser.Read(p)
	return n, stalled(b.ctx, err)
}

func (b *idleBody) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}

// stalled says so where a request was cancelled for that.
func stalled(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// explain sorts a failure and names the next step.
func (p *pull) explain(ctx context.Context, err error) error {
	c := &callError{op: "pull " + p.name, err: err}
	host := registryHost(p.name)
	var platform *platformError
	var status remoteerrors.ErrUnexpectedStatus
	var network net.Error
	httpStatus := 0
	if errors.As(err, &status) {
		httpStatus = status.StatusCode
	}
	text := err.Error()
	switch {
	case ctx.Err() != nil:
		c.err = context.Cause(ctx)
	case errors.As(err, &platform):
		return platform
	case noSpace(err):
		c.kind = spec.ErrRefused
		c.hint, c.err = fullDisk(err)
		c.hint = "what has arrived of it is dropped; " + c.hint
	case errors.Is(err, errStalled), strings.Contains(text, errStalled.Error()):
		c.kind = spec.ErrUnavailable
		c.hint = fmt.Sprintf("registry %s sent nothing for %s; what has arrived is kept for the next try", host, p.engine.cfg.PullIdle)
	case errors.Is(err, docker.ErrInvalidAuthorization), httpStatus == http.StatusUnauthorized, httpStatus == http.StatusForbidden,
		strings.Contains(text, "insufficient_scope"):
		c.kind = spec.ErrRefused
		c.hint = fmt.Sprintf("registry %s refuses the credentials in %s (or there are none): run docker login %s as the agent's user", host, p.engine.dockerFile(), host)
	case strings.Contains(text, "unexpected commit digest"), strings.Contains(text, "unexpected commit size"):
		c.kind = spec.ErrRefused
		c.hint = fmt.Sprintf("what registry %s sends is not what its digest promises: the image or a mirror is damaged", host)
	case httpStatus >= 500, httpStatus == http.StatusTooManyRequests:
		c.kind = spec.ErrUnavailable
		c.hint = fmt.Sprintf("registry %s has a problem of its own", host)
	case errdefs.IsNotFound(err):
		c.kind = spec.ErrNotFound
		c.hint = fmt.Sprintf("registry %s has no such image: check name, tag and digest", host)
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded):
		c.kind = spec.ErrUnavailable
		c.hint = fmt.Sprintf("can registry %s be reached from this host?", host)
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			c.err = op // without the request's URL around it
		}
	default:
		return p.engine.wrap(ctx, err, "pull %s", p.name)
	}
	return c
}

func registryHost(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.Domain(named)
}

func trimTag(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return named.Name()
}
