package api

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/spec"
)

// noting is a backend that notes what is refused, and does nothing else: whatever
// reaches it panics, which is a 500.
type noting struct {
	Backend
	refused []string
}

func (n *noting) RefusedSecret(_ context.Context, kind spec.AuditKind, secret, why string, by spec.Actor) {
	n.refused = append(n.refused, fmt.Sprintf("%s %s by %d: %s", kind, secret, *by.UID, why))
}

// askAs makes one request as a peer that the kernel is made to tell of.
func askAs(t *testing.T, b Backend, o Options, p Peer, pattern, body string) (int, string) {
	t.Helper()
	l, err := Listen(filepath.Join(t.TempDir(), "s"), -1)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(b, o)
	s.http.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, peerKey{}, p) }
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	path := l.(*listener).path
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	method, url, _ := strings.Cut(pattern, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, "http://a"+Prefix+url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer.String()
}

// manageBodies are requests that make sense, by route, with what a refusal of
// them is noted as.
var manageBodies = map[string]struct{ body, noted string }{
	"POST /secrets/set":        {`{"project":"shop","values":{"b":"aHVudGVyMg==","a":"aHVudGVyMg=="}}`, "set shop/a, shop/b by 1234"},
	"POST /secrets/rollback":   {`{"name":"a"}`, "rollback a by 1234"},
	"POST /secrets/remove":     {`{"name":"a"}`, "remove a by 1234"},
	"POST /secrets/compare":    {`{"name":"a","value":"aHVudGVyMg=="}`, "compare a by 1234"},
	"POST /secrets/unlock":     {`{"passphrase":"aHVudGVyMg=="}`, "unlock  by 1234"},
	"POST /secrets/rotate-key": {`{}`, "rotate-key  by 1234"},
	"POST /secrets/reset-key":  {`{}`, "reset-key  by 1234"},
}

// TestWhoManagesSecrets: every route of secrets but those that list is for root,
// the agent's user and one group, and what is refused is noted.
func TestWhoManagesSecrets(t *testing.T) {
	const operators, keepers = 500, 600
	for _, rt := range NewServer(nil, Options{}).routes() {
		if rt.access != manages {
			continue
		}
		q, ok := manageBodies[rt.pattern]
		if !ok {
			t.Errorf("%s has no request here", rt.pattern)
			continue
		}
		for _, c := range []struct {
			name          string
			gid           int
			secrets       int
			status        int
			missing, hint string
		}{
			{"operator where there are keepers", operators, keepers, 403, "it isn't in the group 600", "join the group 600"},
			{"keeper", keepers, keepers, 500, "", ""},
			{"operator where there are none", operators, -1, 500, "", ""},
			{"stranger where there are none", 7, -1, 403, "it isn't in the group 500", "join the group 500"},
		} {
			b := &noting{}
			status, answer := askAs(t, b, Options{Group: operators, SecretsGroup: c.secrets}, Peer{Uid: 1234, Gid: 7, Groups: []int{c.gid}}, rt.pattern, q.body)
			if status != c.status || !strings.Contains(answer, c.missing) || !strings.Contains(answer, c.hint) {
				t.Errorf("%s, %s: %d %s", rt.pattern, c.name, status, answer)
			}
			if noted := strings.Join(b.refused, "; "); c.status == 403 != strings.HasPrefix(noted, q.noted) || c.status == 403 && !strings.Contains(noted, c.missing) {
				t.Errorf("%s, %s: noted %q, want %q", rt.pattern, c.name, noted, q.noted)
			}
		}
		if status, answer := askAs(t, &noting{}, Options{Group: -1, SecretsGroup: -1}, Peer{Uid: 1234}, rt.pattern, q.body); status != 403 || strings.Contains(answer, "group") {
			t.Errorf("%s without groups: %d %s", rt.pattern, status, answer)
		}
		if status, _ := askAs(t, &noting{}, Options{Group: -1, SecretsGroup: keepers}, Peer{Uid: 0}, rt.pattern, q.body); status != 500 {
			t.Errorf("%s by root: %d", rt.pattern, status)
		}
	}
}

// TestStrangersListSecrets: who may connect may list and read the record.
func TestStrangersListSecrets(t *testing.T) {
	for _, pattern := range []string{"GET /secrets", "GET /secrets/audit"} {
		if status, answer := askAs(t, &noting{}, Options{Group: -1, SecretsGroup: -1}, Peer{Uid: 1234}, pattern, ""); status != 500 {
			t.Errorf("%s: %d %s", pattern, status, answer)
		}
	}
}

// TestDeployWithValues: bringing values is setting them, and a preview tells
// whether they are the current ones, as compare does.
func TestDeployWithValues(t *testing.T) {
	o := Options{Group: 500, SecretsGroup: 600}
	operator := Peer{Uid: 1234, Groups: []int{500}}
	with, without := `{"project":{"name":"shop"},"secrets":{"a":"aHVudGVyMg=="}}`, `{"project":{"name":"shop"}}`
	for pattern, noted := range map[string]string{"POST /deploy": "set shop/a by 1234", "POST /preview": "compare shop/a by 1234"} {
		b := &noting{}
		if status, answer := askAs(t, b, o, operator, pattern, with); status != 403 || !strings.Contains(answer, "declare them as external") || len(b.refused) != 1 || !strings.HasPrefix(b.refused[0], noted) {
			t.Errorf("%s with values: %d %s, noted %q", pattern, status, answer, b.refused)
		}
		if status, answer := askAs(t, b, o, operator, pattern, without); status != 500 {
			t.Errorf("%s without values: %d %s", pattern, status, answer)
		}
		if status, answer := askAs(t, b, o, Peer{Uid: 1234, Groups: []int{500, 600}}, pattern, with); status != 500 {
			t.Errorf("%s with values and rights: %d %s", pattern, status, answer)
		}
	}
}

// TestRefusalsNameFew: a request about thousands of secrets is one short line.
func TestRefusalsNameFew(t *testing.T) {
	var ids []spec.SecretID
	for i := range 1000 {
		ids = append(ids, spec.SecretID{Name: fmt.Sprintf("s%d", i)})
	}
	if got, want := several(ids), "s0, s1, s2, s3, s4, 995 more"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestValuesAreCleared: after the backend is done with them.
func TestValuesAreCleared(t *testing.T) {
	value := []byte("hunter2")
	for name, clearing := range map[string]func(){
		"values":     secretValues{Values: map[string][]byte{"a": value}}.clear,
		"value":      namedSecret{Value: value}.clear,
		"passphrase": keyBody{Passphrase: value}.clear,
		"preview":    func() { clearValues(map[string]spec.SecretValue{"a": spec.NewSecretValue(value)}) },
	} {
		copy(value, "hunter2")
		if clearing(); !bytes.Equal(value, make([]byte, 7)) {
			t.Errorf("%s: %q is left", name, value)
		}
	}
}
