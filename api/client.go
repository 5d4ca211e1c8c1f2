package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"dunnage/spec"
)

// DefaultHost is where an agent listens unless told otherwise.
const DefaultHost = "unix:///run/dunnage/agent.sock"

// requestTimeout is for requests that the agent answers out of its memory or
// after a few calls to containerd.
const requestTimeout = 30 * time.Second

// statusTimeout is for what the agent keeps ready; a busy host takes seconds.
const statusTimeout = 10 * time.Second

// answerTime is less, so that an agent that is busy can say so.
const answerTime = requestTimeout - 5*time.Second

// removeTimeout is for the removal of an image with many layers on a slow disk.
const removeTimeout = 5 * time.Minute

// Client talks to an agent. It is a Backend itself: what a caller gets through
// the wire is what the agent's Backend returned, errors included. It is safe
// for concurrent use.
type Client struct {
	host  string
	agent string // the User-Agent header
	http  *http.Client

	socket   string // its path; empty over ssh
	patience time.Duration
	tell     func(*SilentError)          // nil = nobody wants to know
	silent   atomic.Pointer[SilentError] // what the last look found; nil = it answers
}

var _ Backend = (*Client)(nil)

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Host is the address that the client was made for.
func (c *Client) Host() string { return c.host }

// Version asks the agent for its version.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	err = c.get(ctx, "/version", nil, &v)
	return v, err
}

// Deploy implements Backend.
func (c *Client) Deploy(ctx context.Context, r spec.DeployRequest) (op spec.Operation, err error) {
	err = c.post(ctx, "/deploy", deployBody{r, revealed(r.Secrets)}, &op)
	return op, err
}

// Change implements Backend.
func (c *Client) Change(ctx context.Context, project string, r spec.ChangeRequest) (op spec.Operation, err error) {
	err = c.post(ctx, "/projects/"+url.PathEscape(project)+"/change", r, &op)
	return op, err
}

// Operation implements Backend.
func (c *Client) Operation(ctx context.Context, id string) (op spec.Operation, err error) {
	err = c.get(ctx, "/operations/"+url.PathEscape(id), nil, &op)
	return op, err
}

// Preview implements Backend.
func (c *Client) Preview(ctx context.Context, r spec.DeployRequest) (v spec.Preview, err error) {
	err = c.post(ctx, "/preview", deployBody{r, revealed(r.Secrets)}, &v)
	return v, err
}

// Status implements Backend. The agent has the answer at hand, so that one which
// doesn't come soon doesn't come.
func (c *Client) Status(ctx context.Context) (v spec.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	err = c.get(ctx, "/status", nil, &v)
	return v, err
}

// Releases implements Backend.
func (c *Client) Releases(ctx context.Context, project string) (v []spec.Release, err error) {
	err = c.get(ctx, "/projects/"+url.PathEscape(project)+"/releases", nil, &v)
	return v, err
}

// Receipts implements Backend.
func (c *Client) Receipts(ctx context.Context, project string) (v []spec.Receipt, err error) {
	err = c.get(ctx, "/projects/"+url.PathEscape(project)+"/receipts", nil, &v)
	return v, err
}

// Images implements Backend.
func (c *Client) Images(ctx context.Context) (v []spec.Image, err error) {
	err = c.get(ctx, "/images", nil, &v)
	return v, err
}

// RemoveImage implements Backend.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	return c.call(ctx, http.MethodDelete, "/images?"+url.Values{"ref": {ref}}.Encode(), nil, nil)
}

// Load implements Backend. The archive goes up as it is read, for as long as
// ctx allows and the agent lives.
func (c *Client) Load(ctx context.Context, archive io.Reader) (v []spec.Image, err error) {
	// The caller opened the archive; net/http would close it.
	err = c.call(ctx, http.MethodPost, "/images/load", io.NopCloser(archive), &v)
	return v, err
}

// LoadRoom implements Backend.
func (c *Client) LoadRoom(ctx context.Context, layers []spec.MissingBlob) (string, error) {
	var v loadRoom
	err := c.postFor(ctx, removeTimeout, "/images/load/room", layers, &v)
	return v.Note, err
}

// Networks implements Backend.
func (c *Client) Networks(ctx context.Context) (v []spec.NetworkStatus, err error) {
	err = c.get(ctx, "/networks", nil, &v)
	return v, err
}

// Rules implements Backend.
func (c *Client) Rules(ctx context.Context) (v spec.RuleSet, err error) {
	err = c.get(ctx, "/rules", nil, &v)
	return v, err
}

// Explain implements Backend.
func (c *Client) Explain(ctx context.Context, r spec.ExplainRequest) (v spec.Explanation, err error) {
	q := url.Values{"asked": {r.Asked}, "project": {r.Project}}
	if r.From.IsValid() {
		q.Set("from", r.From.String())
	}
	err = c.get(ctx, "/explain", q, &v)
	return v, err
}

// Examine implements Backend.
func (c *Client) Examine(ctx context.Context, fix bool) (v []spec.Finding, err error) {
	if fix {
		err = c.post(ctx, "/doctor/fix", struct{}{}, &v)
		return v, err
	}
	err = c.get(ctx, "/doctor", nil, &v)
	return v, err
}

// Pull implements Backend; progress is called from one goroutine.
func (c *Client) Pull(ctx context.Context, ref string, progress func(spec.PullProgress)) (img spec.Image, err error) {
	body, err := json.Marshal(pullRequest{Ref: ref})
	if err != nil {
		return img, fmt.Errorf("encode the request: %w", err)
	}
	err = c.stream(ctx, http.MethodPost, "/images/pull", bytes.NewReader(body), handlers{
		messageProgress: into(func(p spec.PullProgress) error { progress(p); return nil }),
		messageImage:    into(func(i spec.Image) error { img = i; return nil }),
	})
	return img, err
}

// Logs implements Backend.
func (c *Client) Logs(ctx context.Context, r spec.LogRequest, send func(spec.LogLine) error) error {
	q := url.Values{
		"project": {r.Project},
		"service": r.Services,
		"replica": r.Replicas,
		"tail":    {strconv.Itoa(r.Tail)},
		"follow":  {strconv.FormatBool(r.Follow)},
		"all":     {strconv.FormatBool(r.All)},
		"grep":    {r.Grep},
	}
	for name, t := range map[string]time.Time{"since": r.Since, "until": r.Until} {
		if !t.IsZero() {
			q.Set(name, t.Format(time.RFC3339Nano))
		}
	}
	return c.stream(ctx, http.MethodGet, "/logs?"+q.Encode(), nil, handlers{messageLine: into(send)})
}

func (c *Client) get(ctx context.Context, path string, q url.Values, v any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.call(ctx, http.MethodGet, path, nil, v)
}

func (c *Client) post(ctx context.Context, path string, body, v any) error {
	return c.postFor(ctx, requestTimeout, path, body, v)
}

func (c *Client) postFor(ctx context.Context, timeout time.Duration, path string, body, v any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	if len(b) > maxJSON { // the agent would hang up in the middle of it
		return tooLarge(maxJSON)
	}
	return c.call(ctx, http.MethodPost, path, bytes.NewReader(b), v)
}

// call makes one request and decodes the answer into v.
func (c *Client) call(ctx context.Context, method, path string, body io.Reader, v any) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	defer c.watch(ctx, giveUp)()
	resp, err := c.do(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if v == nil {
		v = new(struct{})
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return c.lost(ctx, fmt.Errorf("read the agent's answer: %w", err))
	}
	return nil
}

// do sends a request; an answer that is not a success becomes an error.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+Prefix+path, body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("User-Agent", c.agent)
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	c.silent.Store(nil)
	if resp.StatusCode < 300 && resp.StatusCode != http.StatusSwitchingProtocols || resp.StatusCode == http.StatusSwitchingProtocols && header != nil {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, answeredError(resp)
}

// answeredError reads the error out of an answer.
func answeredError(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the agent's error: %w", err)
	}
	var e Error
	if json.Unmarshal(b, &e) != nil || e.Message == "" {
		return fmt.Errorf("the agent answered %s without saying why", resp.Status)
	}
	return &e
}

// lost names what a broken connection means: the caller's own end of ctx, no
// agent, or an agent that went away.
func (c *Client) lost(ctx context.Context, err error) error {
	var silent *SilentError
	switch cause := ctx.Err(); {
	case errors.As(context.Cause(ctx), &silent):
		return silent
	case errors.Is(cause, context.DeadlineExceeded):
		if silent = c.silent.Load(); silent == nil {
			silent = &SilentError{Host: c.host}
		}
		return silent
	case cause != nil:
		if silent = c.silent.Load(); silent != nil {
			return fmt.Errorf("%w: %w", cause, silent) // what was asked for may yet be done
		}
		return cause
	}
	var no *NoAgentError
	if errors.As(err, &no) {
		return no
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // its text has a made-up http:// address
	}
	return fmt.Errorf("the connection to the agent at %s broke off: %w", c.host, errors.Join(err, spec.ErrUnavailable))
}
