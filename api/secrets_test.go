package api_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"dunnage/api"
	"dunnage/api/apitest"
	"dunnage/spec"
)

const canary = "c4nary-\x00\xff-hunter2"

var password = spec.SecretID{Name: "db-password"}

func value(text string) spec.SecretValue { return spec.NewSecretValue([]byte(text)) }

func set(t *testing.T, b api.Backend, project string, values map[string]spec.SecretValue) []spec.SecretChange {
	t.Helper()
	changes, err := b.SetSecrets(t.Context(), spec.SecretRequest{Project: project, Values: values})
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// TestSecrets runs one body against the fake and against a client that reaches
// it through the wire, as TestBackend does.
func TestSecrets(t *testing.T) {
	t.Run("direct", func(t *testing.T) { f := apitest.New(); testSecrets(t, f, f) })
	t.Run("wire", func(t *testing.T) { w := newWorld(t); testSecrets(t, w.client, w.fake) })
}

func testSecrets(t *testing.T, b api.Backend, fake *apitest.Fake) {
	ctx := t.Context()
	deploy(t, b, shop())
	fake.UseSecret(password, "shop/db", "shop/web")
	if list, key, err := b.Secrets(ctx, ""); err != nil || len(list) != 0 || key.Source == "" || key.Locked != "" {
		t.Errorf("without secrets: %+v, %+v, %v", list, key, err)
	}
	first := set(t, b, "", map[string]spec.SecretValue{"db-password": value(canary), "other": value("x")})
	if len(first) != 2 || first[0].Version != 1 || len(first[0].Operations) != 1 || len(first[1].Operations) != 0 {
		t.Errorf("set: %+v", first)
	}
	if again := set(t, b, "", map[string]spec.SecretValue{"db-password": value(canary)}); !again[0].Unchanged || again[0].Version != 1 {
		t.Errorf("the same again: %+v", again)
	}
	if other := set(t, b, "", map[string]spec.SecretValue{"db-password": value(canary + "2")}); other[0].Version != 2 || other[0].Unchanged {
		t.Errorf("another value: %+v", other)
	}
	set(t, b, "shop", map[string]spec.SecretValue{"token": value("t")})
	if list, _, err := b.Secrets(ctx, "shop"); err != nil || len(list) != 1 || list[0].String() != "shop/token" {
		t.Errorf("of shop: %+v, %v", list, err)
	}
	back, err := b.RollbackSecret(ctx, password, 0, spec.Actor{})
	if err != nil || back.Version != 1 || len(back.Operations) != 1 {
		t.Errorf("rollback: %+v, %v", back, err)
	}
	for text, want := range map[string]bool{canary: true, canary + "2": false, "": false} {
		if equal, err := b.CompareSecret(ctx, password, value(text), spec.Actor{}); err != nil || equal != want {
			t.Errorf("compare with %q: %t, %v", text, equal, err)
		}
	}
	if key, err := b.RotateKey(ctx, value(""), true, spec.Actor{}); err != nil || key.Locked != "" {
		t.Errorf("rotate: %+v, %v", key, err)
	}
	testSecretErrors(t, b)
	testLock(t, b, fake)
	testAudit(t, b)
}

func testSecretErrors(t *testing.T, b api.Backend) {
	ctx := t.Context()
	nope := spec.SecretID{Project: "shop", Name: "nope"}
	for name, c := range map[string]struct {
		err, want error
		says      string
	}{
		"rollback": {second(b.RollbackSecret(ctx, nope, 0, spec.Actor{})), spec.ErrNotFound, "shop/nope"},
		"compare":  {second(b.CompareSecret(ctx, nope, value(canary), spec.Actor{})), spec.ErrNotFound, "shop/nope"},
		"remove":   {b.RemoveSecret(ctx, nope, spec.Actor{}), spec.ErrNotFound, "shop/nope"},
		"in use":   {b.RemoveSecret(ctx, password, spec.Actor{}), spec.ErrRefused, "used by shop/db, shop/web"},
	} {
		if !errors.Is(c.err, c.want) || !strings.Contains(c.err.Error(), c.says) || strings.Contains(c.err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func testLock(t *testing.T, b api.Backend, fake *apitest.Fake) {
	ctx := t.Context()
	fake.LockSecrets("")
	if _, key, err := b.Secrets(ctx, ""); err != nil || key.Locked == "" || !key.Passphrase || !key.Unset {
		t.Errorf("locked: %+v, %v", key, err)
	}
	_, err := b.SetSecrets(ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{"a": value(canary)}})
	if !errors.Is(err, spec.ErrUnavailable) {
		t.Errorf("set while locked: %v", err)
	}
	if key, err := b.Unlock(ctx, value("correct horse"), spec.Actor{}); err != nil || key.Locked != "" || key.Passphrase || key.Unset {
		t.Errorf("first unlock: %+v, %v", key, err)
	}
	if _, err := b.Unlock(ctx, value("wrong horse"), spec.Actor{}); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("wrong passphrase: %v", err)
	}
}

func testAudit(t *testing.T, b api.Backend) {
	var chain spec.AuditChain
	err := b.SecretAudit(t.Context(), 1, func(e spec.AuditEntry) error { return chain.Check(e) })
	if err != nil || chain.Last.Kind != spec.AuditUnlock {
		t.Errorf("audit: %+v, %v", chain.Last, err)
	}
	stop := errors.New("stop")
	err = b.SecretAudit(t.Context(), 3, func(e spec.AuditEntry) error {
		if e.Seq != 3 {
			t.Errorf("asked for entry 3, got %d", e.Seq)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("stopped audit: %v", err)
	}
}

// TestAuditInParts: more entries than an answer has come one after another.
func TestAuditInParts(t *testing.T) {
	w := newWorld(t)
	for range 2500 {
		w.fake.RefusedSecret(t.Context(), spec.AuditSet, "a", "no", spec.Actor{})
	}
	var chain spec.AuditChain
	if err := w.client.SecretAudit(t.Context(), 1, func(e spec.AuditEntry) error { return chain.Check(e) }); err != nil || chain.Last.Seq != 2500 {
		t.Errorf("%d entries, %v", chain.Last.Seq, err)
	}
}

// TestActorIsTheKernels: who asked is what the kernel says, not the request.
func TestActorIsTheKernels(t *testing.T) {
	w := newWorld(t)
	liar := 12345
	_, err := w.client.SetSecrets(t.Context(), spec.SecretRequest{Values: map[string]spec.SecretValue{"a": value("b")}, By: spec.Actor{UID: &liar, User: "liar"}})
	if err != nil {
		t.Fatal(err)
	}
	err = w.client.SecretAudit(t.Context(), 1, func(e spec.AuditEntry) error {
		if e.UID == nil || *e.UID != os.Getuid() || e.User == "liar" {
			t.Errorf("noted %+v", e)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestDeployBringsValues: they travel beside the request, and preview takes them.
func TestDeployBringsValues(t *testing.T) {
	w := newWorld(t)
	r := spec.DeployRequest{Project: shop(), Secrets: map[string]spec.SecretValue{"token": value(canary)}, Force: true}
	if _, err := w.client.Preview(t.Context(), r); err != nil {
		t.Error(err)
	}
	if _, err := w.client.Deploy(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	want := "deploy shop force=true remove-orphans=false secret=token"
	if calls := w.fake.Calls(); !slices.Contains(calls, want) {
		t.Errorf("calls %q, want %q", calls, want)
	}
	if equal, err := w.client.CompareSecret(t.Context(), spec.SecretID{Project: "shop", Name: "token"}, value(canary), spec.Actor{}); err != nil || !equal {
		t.Errorf("the value that arrived is another: %v", err)
	}
}

// TestSecretBounds: what is refused for its size or its name, naming the secret.
func TestSecretBounds(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("v", spec.MaxSecret+1)
	many := map[string]spec.SecretValue{}
	for i := range 30 {
		many[fmt.Sprintf("s%d", i)] = value(long[1:])
	}
	for name, c := range map[string]struct {
		project string
		values  map[string]spec.SecretValue
		says    string
	}{
		"long":     {"", map[string]spec.SecretValue{"a": value("x"), "b": value(long)}, "secret b: the value is longer than 512 KiB"},
		"empty":    {"shop", map[string]spec.SecretValue{"a": value("")}, "secret shop/a: the value is empty"},
		"name":     {"", map[string]spec.SecretValue{"../a": value(canary)}, `secret name "../a"`},
		"project":  {"a\nb", map[string]spec.SecretValue{"a": value(canary)}, `project name "a\nb"`},
		"none":     {"", nil, "values is missing"},
		"too much": {"", many, "more than 16777216 bytes"},
	} {
		_, err := w.client.SetSecrets(t.Context(), spec.SecretRequest{Project: c.project, Values: c.values})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "vvv") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %.300v, want %q", name, err, c.says)
		}
	}
	if calls := w.fake.Calls(); len(calls) > 0 {
		t.Errorf("bad requests reached the backend: %v", calls)
	}
	if _, err := w.client.SetSecrets(t.Context(), spec.SecretRequest{Values: map[string]spec.SecretValue{"a": value(long[1:])}}); err != nil {
		t.Errorf("the longest value: %v", err)
	}
}

// TestValuesStayOutOfAnswersAndLogs sends values in requests that succeed, that
// are refused and that make no sense.
func TestValuesStayOutOfAnswersAndLogs(t *testing.T) {
	w := newWorld(t)
	w.fake.LockSecrets("correct-hunter2")
	coded := base64.StdEncoding.EncodeToString([]byte(canary))
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/v1/secrets/set", `{"values":{"a":"` + coded + `"}}`, 503},
		{"/v1/secrets/unlock", `{"passphrase":"` + coded + `"}`, 409},
		{"/v1/secrets/unlock", `{"passphrase":"` + base64.StdEncoding.EncodeToString([]byte("correct-hunter2")) + `"}`, 200},
		{"/v1/secrets/set", `{"values":{"a":"` + coded + `"}}`, 200},
		{"/v1/secrets/compare", `{"name":"a","value":"` + coded + `"}`, 200},
		{"/v1/secrets/compare", `{"name":"b","value":"` + coded + `"}`, 404},
		{"/v1/secrets/set", `{"values":{"a":"hunter2"}}`, 400},        // not base64
		{"/v1/secrets/set", `{"values":{"a":["hunter2"]}}`, 400},      // no text
		{"/v1/secrets/set", `{"values":"hunter2"}`, 400},              // no object
		{"/v1/secrets/set", `{"values":{"a":"` + coded, 400},          // cut off
		{"/v1/secrets/set", `{"values":{"a":"` + coded + `"}}1`, 400}, // more follows
		{"/v1/secrets/set", `{"values":{"a":hunter2}}`, 400},          // no JSON
		{"/v1/deploy", `{"project":{"name":"x"},"secrets":{"a":"hunter2"}}`, 400},
		{"/v1/deploy", `{"project":{},"secrets":{"a":"` + coded + `"}}`, 400},
		{"/v1/preview", `{"project":{"name":"x"},"secrets":{"a":"` + coded + `"}}`, 200},
		{"/v1/deploy", `{"project":{"name":"x","services":[]},"secrets":{"a":"` + coded + `"},"force":true}`, 202},
	} {
		status, answer := w.raw(t, "POST", c.path, c.body)
		if status != c.status || strings.Contains(answer, "hunter2") || strings.Contains(answer, coded[:12]) {
			t.Errorf("%s %s: %d %s, want %d", c.path, c.body, status, answer, c.status)
		}
	}
	for _, path := range []string{"/v1/secrets", "/v1/secrets/audit", "/v1/status", "/v1/projects/x/releases"} {
		if status, answer := w.raw(t, "GET", path, ""); status != 200 || strings.Contains(answer, "hunter2") || strings.Contains(answer, coded[:12]) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	if log := w.log.String(); strings.Contains(log, "hunter2") || strings.Contains(log, coded[:12]) || !strings.Contains(log, "level=INFO msg=request method=POST path=/v1/secrets/set status=200") {
		t.Errorf("log: %s", log)
	}
}
