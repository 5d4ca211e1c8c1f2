package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"dunnage/api"
	"dunnage/api/apitest"
	"dunnage/spec"
)

// TestMain makes this program, where a test says so, an agent that takes
// connections and answers none.
func TestMain(m *testing.M) {
	if path := os.Getenv("DUNNAGE_TEST_MUTE"); path != "" {
		l, err := net.Listen("unix", path)
		if err != nil {
			panic(err)
		}
		time.Sleep(time.Minute) // it is killed before that
		_ = l.Close()
		return
	}
	goleak.VerifyTestMain(m)
}

// world is a Fake behind a real server on a real socket, and a client.
type world struct {
	fake   *apitest.Fake
	client *api.Client
	socket string
	log    *logBuffer
	stop   func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldWith(t, func(*api.Options) {})
}

func newWorldWith(t *testing.T, change func(*api.Options)) *world {
	t.Helper()
	w := &world{fake: apitest.New(), socket: filepath.Join(t.TempDir(), "agent.sock"), log: &logBuffer{}}
	l, err := api.Listen(w.socket, -1)
	if err != nil {
		t.Fatal(err)
	}
	o := api.Options{Version: api.Version{Version: "1.2.3"}, Group: -1,
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	change(&o)
	s := api.NewServer(w.fake, o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	w.client, err = api.Dial("unix://"+w.socket, o.Version)
	if err != nil {
		t.Fatal(err)
	}
	w.stop = sync.OnceFunc(func() {
		w.client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// shop is a project of two services.
func shop() spec.Project {
	probe := []spec.Probe{{Kind: spec.ProbeTCP, Port: 80}}
	return spec.Project{Name: "shop", Services: []spec.Service{
		{Name: "db", Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StopFirst}, Container: spec.Container{Image: "db:1", Probes: probe}},
		{Name: "web", Replicas: 2, Update: spec.UpdatePolicy{Order: spec.StartFirst}, Container: spec.Container{Image: "web:1", Probes: probe},
			Ports: []spec.Port{{Published: 8080, Target: 80, Protocol: spec.TCP}}},
	}}
}

func deploy(t *testing.T, b api.Backend, p spec.Project) spec.Operation {
	t.Helper()
	op, err := b.Deploy(t.Context(), spec.DeployRequest{Project: p})
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// TestBackend runs one body against the fake itself and against a client that
// reaches it through the wire: both must look the same.
func TestBackend(t *testing.T) {
	t.Run("direct", func(t *testing.T) { testBackend(t, apitest.New()) })
	t.Run("wire", func(t *testing.T) { testBackend(t, newWorld(t).client) })
}

func testBackend(t *testing.T, b api.Backend) {
	ctx := t.Context()
	op := deploy(t, b, shop())
	if op.Release != 1 || op.State != spec.OperationRolling {
		t.Fatalf("deploy: %+v", op)
	}
	if again := deploy(t, b, shop()); again.State != spec.OperationUnchanged {
		t.Errorf("the same again is %s", again.State)
	}
	if op, err := b.Operation(ctx, op.ID); err != nil || op.State != spec.OperationDone {
		t.Errorf("operation: %+v, %v", op, err)
	}
	if _, err := b.Change(ctx, "shop", spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": 3}}); err != nil {
		t.Errorf("scale: %v", err)
	}
	st, err := b.Status(ctx)
	if err != nil || len(st.Projects) != 1 || len(st.Projects[0].Services[1].Replicas) != 3 {
		t.Errorf("status: %+v, %v", st, err)
	}
	receipts, err := b.Receipts(ctx, "shop")
	if err != nil || len(receipts) == 0 || receipts[len(receipts)-1].Release != 1 || receipts[0].Visits == nil {
		t.Fatalf("Receipts: %+v, %v", receipts, err)
	}
	rel, err := b.Releases(ctx, "shop")
	if err != nil || len(rel) != 2 || rel[0].Number != 2 || rel[0].Reason != "scale web=3" {
		t.Errorf("releases: %+v, %v", rel, err)
	}
	if diff := cmp.Diff(shop(), rel[1].Project, cmp.Comparer(samePort)); diff != "" {
		t.Errorf("the project changed on the way:\n%s", diff)
	}
	prev, err := b.Preview(ctx, spec.DeployRequest{Project: shop()})
	if err != nil || prev.From != 2 || prev.Services[1].Change != spec.ChangeScale {
		t.Errorf("preview: %+v, %v", prev, err)
	}
	if nets, err := b.Networks(ctx); err != nil || nets[0].ID != "shop_default" {
		t.Errorf("networks: %+v, %v", nets, err)
	}
	if rules, err := b.Rules(ctx); err != nil || rules.Kernel != rules.Rendered || rules.Kernel == "" {
		t.Errorf("rules: %+v, %v", rules, err)
	}
	testImages(t, b)
	testErrors(t, b)
}

func samePort(a, b spec.Port) bool { return a == b }

func testImages(t *testing.T, b api.Backend) {
	ctx := t.Context()
	imgs, err := b.Load(ctx, strings.NewReader("a:1 b:1"))
	if err != nil || len(imgs) != 2 {
		t.Fatalf("load: %+v, %v", imgs, err)
	}
	for size, want := range map[int64]string{1: "", 2 << 20: "collected 1.0 GiB of what nobody needs, to make room"} {
		if note, err := b.LoadRoom(ctx, []spec.MissingBlob{{Digest: "sha256:ab", Size: size, Unpacked: 3}}); err != nil || note != want {
			t.Errorf("room for %d bytes: %q, %v", size, note, err)
		}
	}
	var steps []string
	img, err := b.Pull(ctx, "c:1", func(p spec.PullProgress) { steps = append(steps, p.State) })
	if err != nil || img.Ref != "c:1" {
		t.Errorf("pull: %+v, %v", img, err)
	}
	if want := []string{"resolving", "downloading", "done", "unpacking", "ready"}; !slices.Equal(steps, want) {
		t.Errorf("progress %v, want %v", steps, want)
	}
	if err := b.RemoveImage(ctx, "a:1"); err != nil {
		t.Errorf("remove: %v", err)
	}
	if left, err := b.Images(ctx); err != nil || len(left) != 2 || left[0].Ref != "b:1" {
		t.Errorf("images: %+v, %v", left, err)
	}
}

func testErrors(t *testing.T, b api.Backend) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"operation": {second(b.Operation(ctx, "nope")), spec.ErrNotFound},
		"releases":  {second(b.Releases(ctx, "no/such")), spec.ErrNotFound},
		"receipts":  {second(b.Receipts(ctx, "no/such")), spec.ErrNotFound},
		"change":    {second(b.Change(ctx, "nope", spec.ChangeRequest{Kind: "stop"})), spec.ErrNotFound},
		"rollback":  {second(b.Change(ctx, "shop", spec.ChangeRequest{Kind: "rollback", Release: 99})), spec.ErrRefused},
		"image":     {b.RemoveImage(ctx, "docker.io/library/nope:1"), spec.ErrNotFound},
		"load":      {second(b.Load(ctx, strings.NewReader(""))), spec.ErrRefused},
		"room":      {second(b.LoadRoom(ctx, []spec.MissingBlob{{Size: 2 << 30}})), spec.ErrRefused},
		"pull":      {second(b.Pull(ctx, "missing:1", func(spec.PullProgress) {})), spec.ErrNotFound},
		"logs":      {b.Logs(ctx, spec.LogRequest{Project: "nope"}, func(spec.LogLine) error { return nil }), spec.ErrNotFound},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v is not %v", name, c.err, c.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestErrorsKeepIdentityTextAndHint(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		give, is   error
		text, hint string
	}{
		{fmt.Errorf("port 80 is held by nginx (pid 812): %w", spec.ErrRefused), spec.ErrRefused, "port 80 is held by nginx (pid 812)", ""},
		{fmt.Errorf("containerd: %w", spec.ErrUnavailable), spec.ErrUnavailable, "containerd: unavailable", ""},
		{hinted{}, spec.ErrRefused, "no", "try the other one"},
	} {
		w.fake.RefuseNext(c.give)
		_, err := w.client.Deploy(t.Context(), spec.DeployRequest{Project: shop()})
		if !errors.Is(err, c.is) || err.Error() != c.text {
			t.Errorf("gave %v, got %v", c.give, err)
		}
		var e *api.Error
		if !errors.As(err, &e) || e.Hint != c.hint {
			t.Errorf("hint %q, want %q", e.Hint, c.hint)
		}
	}
	w.fake.RefuseNext(errors.New("odd"))
	_, err := w.client.Deploy(t.Context(), spec.DeployRequest{Project: shop()})
	if errors.Is(err, spec.ErrRefused) || errors.Is(err, spec.ErrNotFound) || errors.Is(err, spec.ErrUnavailable) || err.Error() != "odd" {
		t.Errorf("an error without identity became %v", err)
	}
}

type hinted struct{}

func (hinted) Error() string { return "no" }
func (hinted) Hint() string  { return "try the other one" }
func (hinted) Unwrap() error { return spec.ErrRefused }

func (w *world) raw(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	resp, text := w.request(t, method, path, body, nil)
	return resp.StatusCode, text
}

// request asks as any program may; the answer's body is read and closed.
func (w *world) request(t *testing.T, method, path, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.socket)
	}, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	big := `{"project":{"name":"` + strings.Repeat("x", 16<<20) + `"}}`
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/v1/deploy", ``, 400, "the body is empty"},
		{"POST", "/v1/deploy", `{"project":`, 400, "ends too early"},
		{"POST", "/v1/deploy", `[]`, 400, "JSON array"},
		{"POST", "/v1/deploy", `{"project":{"name":"a","services":[{"replicas":"two"}]}}`, 400, "replicas: a JSON string where int is expected"},
		{"POST", "/v1/deploy", `{"project":{"name":"a","colour":"red"}}`, 400, `unknown field \"colour\"`},
		{"POST", "/v1/deploy", `{"project":{"name":"a"}} {}`, 400, "more follows"},
		{"POST", "/v1/deploy", `{}`, 400, "project.name is missing"},
		{"POST", "/v1/deploy", big, 413, "more than 16777216 bytes"},
		{"POST", "/v1/projects/a/change", `{}`, 400, "kind is missing"},
		{"POST", "/v1/exec", `{"replica":"a","command":["x"]}`, 400, "Upgrade: dunnage-exec/1"},
		{"GET", "/v1/logs?project=a&tail=many", ``, 400, "not a whole number"},
		{"GET", "/v1/logs?project=a&follow=maybe", ``, 400, "true or false"},
		{"GET", "/v1/logs", ``, 400, "project is missing"},
		{"GET", "/v1/logs?project=nope", ``, 404, "projects here"},
		{"GET", "/v1/events?since=-1", ``, 400, "start at 0"},
		{"GET", "/v1/events?follow=maybe", ``, 400, "true or false"},
		{"POST", "/v1/secrets/rollback", `{"name":"a","version":-1}`, 400, "numbered from 1"},
		{"DELETE", "/v1/images", ``, 400, "ref is missing"},
	} {
		status, body := w.raw(t, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.says) || !strings.Contains(body, `"kind":`) {
			t.Errorf("%s %s %.60s: %d %s, want %d with %q", c.method, c.path, c.body, status, body, c.status, c.says)
		}
	}
	if calls := w.fake.Calls(); len(calls) > 0 {
		t.Errorf("bad requests reached the backend: %v", calls)
	}
}

// TestWrongAddress: a wrong path and a wrong method are told apart, and other
// versions are blamed only where they are others.
func TestWrongAddress(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, path, program string
		status                int
		allow, says, hint     string
	}{
		{"GET", "/v2/status", "curl/8", 404, "", "path /v2/status", ""},
		{"GET", "/", "curl/8", 404, "", "begin with /v1", ""},
		{"PUT", "/v1/status", "curl/8", 405, "GET", "only GET", ""},
		{"POST", "/v1/images", "curl/8", 405, "GET, DELETE", "only GET, DELETE", ""},
		{"GET", "/v1/projects/shop/change", "curl/8", 405, "POST", "only POST", ""},
		{"GET", "/v1/new", "dunnage/1.2.3", 404, "", "path /v1/new", ""},
		{"GET", "/v1/new", "dunnage/1.2.4", 404, "", "path /v1/new", "agent (1.2.3) and command line (1.2.4) have different versions"},
		{"PUT", "/v1/status", "dunnage/1.2.4", 405, "GET", "only GET", "different versions"},
	} {
		resp, body := w.request(t, c.method, c.path, "", http.Header{"User-Agent": {c.program}})
		if resp.StatusCode != c.status || resp.Header.Get("Allow") != c.allow || !strings.Contains(body, c.says) {
			t.Errorf("%s %s: %s, Allow %q, %s", c.method, c.path, resp.Status, resp.Header.Get("Allow"), body)
		}
		if (c.hint == "") == strings.Contains(body, "hint") || !strings.Contains(body, c.hint) {
			t.Errorf("%s %s by %s: %s, want the hint %q", c.method, c.path, c.program, body, c.hint)
		}
	}
}

func TestPanicIsAnAnswerAndALogLine(t *testing.T) {
	w := newWorld(t)
	w.fake.PanicNext()
	_, err := w.client.Status(t.Context())
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.KindInternal {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(w.log.String(), "asked for by the test") || !strings.Contains(w.log.String(), "stack=") {
		t.Errorf("log: %s", w.log)
	}
	if _, err := w.client.Status(t.Context()); err != nil {
		t.Errorf("the server didn't survive: %v", err)
	}
}

func TestRequestsAreLoggedWithTheirUser(t *testing.T) {
	w := newWorld(t)
	deploy(t, w.client, shop())
	want := "level=INFO msg=request method=POST path=/v1/deploy status=202"
	if log := w.log.String(); !strings.Contains(log, want) || !strings.Contains(log, fmt.Sprintf("uid=%d pid=%d", os.Geteuid(), os.Getpid())) {
		t.Errorf("log: %s", log)
	}
}

func TestVersion(t *testing.T) {
	w := newWorld(t)
	v, err := w.client.Version(t.Context())
	if err != nil || v.Version != "1.2.3" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestFollowSeesEverythingAndTheOutcome(t *testing.T) {
	w := newWorld(t)
	w.fake.Hold()
	op := deploy(t, w.client, shop())
	other := shop()
	other.Name = "other"
	deploy(t, w.client, other)
	var kinds []spec.EventKind
	end, err := w.client.Follow(t.Context(), op.ID, func(e spec.Event) {
		if e.Operation != op.ID {
			t.Errorf("an event of %s", e.Operation)
		}
		if kinds = append(kinds, e.Kind); len(kinds) == 1 {
			w.fake.Release()
		}
	})
	if err != nil || end.State != spec.OperationDone || len(end.Services) != 2 {
		t.Fatalf("%+v, %v", end, err)
	}
	// 1 release, 3 replicas with 3 events each, 2 services converged, done
	if len(kinds) != 13 || kinds[0] != spec.EventRelease || kinds[12] != spec.EventDone {
		t.Errorf("events %v", kinds)
	}
}

// TestFollowSeesTheProject: replicas' events don't name an operation.
func TestFollowSeesTheProject(t *testing.T) {
	w := newWorld(t)
	old := w.fake.Now.Add(-time.Hour)
	w.fake.AddEvent(spec.Event{Kind: spec.EventStarted, Project: "shop", At: old, Message: "before"})
	w.fake.Hold()
	op := deploy(t, w.client, shop())
	for _, project := range []string{"shop", "other", ""} {
		w.fake.AddEvent(spec.Event{Kind: spec.EventProblem, Project: project, Message: "of " + project})
	}
	var got []string
	_, err := w.client.Follow(t.Context(), op.ID, func(e spec.Event) {
		if e.Kind == spec.EventProblem || e.Kind == spec.EventStarted && e.Operation == "" {
			got = append(got, e.Message)
		}
		if len(got) == 2 {
			w.fake.Release()
		}
	})
	if want := []string{"of shop", "of "}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestFollowOfAnEndedOperationReplaysIt(t *testing.T) {
	w := newWorld(t)
	op := deploy(t, w.client, shop())
	n := 0
	end, err := w.client.Follow(t.Context(), op.ID, func(spec.Event) { n++ })
	if err != nil || end.State != spec.OperationDone || n != 13 {
		t.Errorf("%d events, %+v, %v", n, end, err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	w.fake.Hold()
	op := deploy(t, w.client, shop())
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := w.client.Follow(ctx, op.ID, func(spec.Event) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestStreamsEndWhenTheAgentDoes(t *testing.T) {
	w := newWorld(t)
	deploy(t, w.client, shop())
	first := true
	err := w.client.Events(t.Context(), spec.EventRequest{Follow: true}, func(spec.Event) error {
		if first {
			first = false
			go w.stop()
		}
		return nil
	})
	if !errors.Is(err, spec.ErrUnavailable) {
		t.Errorf("a stream that was cut off ended with %v", err)
	}
}

func TestLogsFollow(t *testing.T) {
	w := newWorld(t)
	deploy(t, w.client, shop())
	odd := []byte("\x00\xff\n\r\x1b[31m")
	w.fake.AddLine(spec.LogLine{Service: "db", Text: []byte("other")})
	w.fake.AddLine(spec.LogLine{Service: "web", Text: odd})
	w.fake.AddLine(spec.LogLine{Service: "web", Text: bytes.Repeat([]byte("x"), 1<<20)})
	done := errors.New("enough")
	var got [][]byte
	err := w.client.Logs(t.Context(), spec.LogRequest{Project: "shop", Services: []string{"web"}, Tail: -1, Follow: true}, func(l spec.LogLine) error {
		if got = append(got, l.Text); len(got) == 2 {
			w.fake.AddLine(spec.LogLine{Service: "web", Text: []byte("later")})
		}
		if len(got) == 3 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	if !bytes.Equal(got[0], odd) || len(got[1]) != 1<<20 || string(got[2]) != "later" {
		t.Errorf("lines %.40q", got)
	}
}

// TestSlowReader lets a client take nothing: it is cut off, and nobody else
// notices.
func TestSlowReader(t *testing.T) {
	w := newWorldWith(t, func(o *api.Options) { o.Patience = 200 * time.Millisecond })
	conn, err := net.Dial("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: agent\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		w.fake.AddEvent(spec.Event{Kind: spec.EventProblem, Message: strings.Repeat("x", 1000)})
	}
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(w.log.String(), "doesn't take the stream"); {
		if time.Now().After(deadline) {
			t.Fatalf("not cut off; log: %s", w.log)
		}
		time.Sleep(10 * time.Millisecond) // the log has no event to wait for
	}
	n, stop := 0, errors.New("all")
	err = w.client.Events(t.Context(), spec.EventRequest{Follow: true}, func(spec.Event) error {
		if n++; n == 2000 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Errorf("another client got %d events, then %v", n, err)
	}
}

func TestRequestTooLargeIsSaidBeforeItIsSent(t *testing.T) {
	w := newWorld(t)
	p := shop()
	p.Name = strings.Repeat("x", 17<<20)
	_, err := w.client.Deploy(t.Context(), spec.DeployRequest{Project: p})
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.KindTooLarge {
		t.Errorf("got %.200v", err)
	}
}
