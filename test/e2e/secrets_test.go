package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"dunnage/api"
	"dunnage/internal/testenv"
	"dunnage/spec"
	"dunnage/test/load"
)

// loadKeeper loads a program that serves what a secret has: as root, and as
// user 1000.
func (h *host) loadKeeper() {
	h.t.Helper()
	image := func(user string) v1.Image {
		return testenv.Image(h.t, testenv.ImageSpec{Config: v1.Config{
			Entrypoint: []string{"/testapp"}, Cmd: []string{"keep", "/run/secrets/token", "8000"}, User: user,
		}})
	}
	archive := testenv.Archive(h.t, map[string]v1.Image{"example.org/keeper:root": image(""), "example.org/keeper:app": image("1000")})
	b, err := io.ReadAll(archive)
	if err != nil {
		h.t.Fatal(err)
	}
	h.must("image", "load", h.file("keeper.tar", string(b)))
}

// keeper is a manifest of that program, with a file "token" from the store.
func keeper(replicas int, dunnage, more string) string {
	return fmt.Sprintf(`name: keeper
services:
  web:
    image: example.org/keeper:root
    deploy: {replicas: %d}
    ports: ["8080:8000"]
    stop_grace_period: 5s
    secrets: [token]
    x-dunnage: {drain: 1s, probe: {http: {port: 8000, path: /health}, interval: 200ms, retries: 2}%s}
%ssecrets: {token: {external: true}}
`, replicas, dunnage, more)
}

// set sets a secret through standard input.
func (h *host) set(name, value string, args ...string) result {
	h.t.Helper()
	return h.runIn(value+"\n", nil, append([]string{"secret", "set", name}, args...)...)
}

func (h *host) mustSet(name, value string, args ...string) {
	h.t.Helper()
	if r := h.set(name, value, args...); r.code != 0 {
		h.t.Fatalf("secret set %s: exit code %d\n%s%s", name, r.code, r.stdout, r.stderr)
	}
}

// is checks that a secret's current version has the value.
func (h *host) is(name, value string) {
	h.t.Helper()
	if r := h.runIn(value+"\n", nil, "secret", "compare", name); r.code != 0 || r.stdout != "equal\n" {
		h.t.Errorf("compare %s: %+v", name, r)
	}
}

// refuses checks that a verb ends with an exit code and says why.
func (h *host) refuses(r result, code int, want ...string) {
	h.t.Helper()
	for _, w := range want {
		if r.code != code || !strings.Contains(r.stderr, w) {
			h.t.Errorf("exit code %d, want %d and %q:\n%s%s", r.code, code, w, r.stdout, r.stderr)
			return
		}
	}
}

// inside reads a file as a replica sees it.
func (h *host) inside(r spec.ReplicaStatus, path string) string {
	h.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", r.Pid, path))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// mode is mode, owner and group of a file in a replica.
func (h *host) mode(r spec.ReplicaStatus, path string) string {
	h.t.Helper()
	fi, err := os.Lstat(fmt.Sprintf("/proc/%d/root%s", r.Pid, path))
	if err != nil {
		h.t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%04o %d:%d", fi.Mode().Perm(), st.Uid, st.Gid)
}

// environ is the environment of a replica's process.
func (h *host) environ(r spec.ReplicaStatus) []string {
	h.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", r.Pid))
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// holders lists the files below a folder that have the text in them.
func (h *host) holders(dir, text string) (found []string) {
	h.t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !d.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EINVAL) { // namespaces look like files
			return err
		}
		if strings.Contains(string(b), text) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

// audit lists the audit record, after checking it.
func (h *host) audit() (entries []spec.AuditEntry) {
	h.t.Helper()
	var chain spec.AuditChain
	err := h.client().SecretAudit(h.t.Context(), 1, func(e spec.AuditEntry) error {
		entries = append(entries, e)
		return chain.Check(e)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return entries
}

func (h *host) client() *api.Client {
	h.t.Helper()
	c, err := api.Dial(h.agent.URL(), api.Version{})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func TestSecretsSet(t *testing.T) {
	h := newHost(t)
	h.mustSet("from-stdin", "one")
	h.is("from-stdin", "one")
	if r := h.runIn("two", nil, "secret", "compare", "from-stdin"); r.code != 3 || r.stdout != "different\n" {
		t.Errorf("another value: %+v", r)
	}
	h.must("secret", "set", "from-file", "--from-file", h.file("value", "a\nb\n"))
	h.must("secret", "compare", "from-file", "--from-file", h.file("value", "a\nb\n"))
	h.must("secret", "set", "--from-env-file", h.file("env", "# many\nA_USER=x y\nexport A_KEY='k=\"1'\n"))
	h.is("A_USER", "x y")
	h.is("A_KEY", `k="1`)
	h.must("secret", "set", "made", "--generate", "40")
	h.mustSet("own", "of the project", "-p", "shop")
	h.must("secret", "rm", "made")
	if r := h.set("from-stdin", "one"); r.code != 0 || !strings.Contains(r.stdout, "has this value already") {
		t.Errorf("the same value again: %+v", r)
	}

	h.refuses(h.run(nil, "secret", "set", "argument", "hunter2"), 2, "isn't taken from the command line")
	h.refuses(h.run(nil, "secret", "set", "argument=hunter2"), 2, "isn't taken from the command line")
	for _, name := range []string{"../x", "a b", "a\n", "", ".hidden", strings.Repeat("n", 129)} {
		h.refuses(h.set(name, "v"), 2, "")
	}
	if _, err := h.client().SetSecrets(t.Context(), spec.SecretRequest{Values: map[string]spec.SecretValue{"../x": spec.NewSecretValue([]byte("v"))}}); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("a bad name from another client: %v", err)
	}
	h.refuses(h.set("big", strings.Repeat("v", spec.MaxSecret+1)), 1, "longer than 512 KiB")
	h.refuses(h.runIn("\n", nil, "secret", "set", "empty"), 1, "the value is empty")
	h.refuses(h.run(nil, "secret", "rm", "from-stdim"), 1, "did you mean from-stdin?")

	h.mustSet("long", strings.Repeat("v", 5000))
	h.mustSet("short", "v")
	var all []map[string]any
	if err := json.Unmarshal([]byte(h.must("secret", "ls", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		for key := range s {
			if !slices.Contains([]string{"name", "project", "version", "versions", "created", "used_by"}, key) {
				t.Errorf("secret ls --json tells %s of %v", key, s["name"])
			}
		}
	}
	text := h.must("secret", "ls")
	for _, value := range []string{"one", "x y", "5000", "of the project", "vvv"} {
		if strings.Contains(text, value) {
			t.Errorf("secret ls tells %q:\n%s", value, text)
		}
	}
	if !strings.Contains(text, "shop/own") || strings.Contains(text, "made") {
		t.Errorf("secret ls:\n%s", text)
	}
	kinds := map[spec.AuditKind]int{}
	for _, e := range h.audit() {
		if e.UID == nil || *e.UID != 0 {
			t.Errorf("who did this? %+v", e)
		}
		kinds[e.Kind]++
	}
	if kinds[spec.AuditSet] < 8 || kinds[spec.AuditCompare] != 5 || kinds[spec.AuditRemove] != 2 {
		t.Errorf("audit has %v", kinds)
	}
	if out := h.must("secret", "audit", "--verify"); !strings.Contains(out, "none changed, missing or put in") {
		t.Error(out)
	}
}

// How secrets stand in a container: owner, mode, variables, configs, and what
// doesn't have them.
func TestSecretsInContainers(t *testing.T) {
	h := newHost(t)
	h.loadKeeper()
	h.mustSet("token", "t0ken-value")
	h.mustSet("env-only", "3nv-value")
	h.mustSet("both", "b0th-value")
	manifest := `name: forms
services:
  root:
    image: example.org/keeper:root
    secrets:
      - token
      - {source: both, target: deep/er, uid: "7", gid: "8", mode: 0440}
      - {source: both, target: /etc/both.conf}
      - maybe
    x-dunnage: {secret_env: {ENV_ONLY: env-only, BOTH: both, MAYBE: maybe}}
    configs: [{source: conf, target: /etc/app.conf}]
  app:
    image: example.org/keeper:app
    secrets: [token, maybe]
    x-dunnage: {secret_env: {ENV_ONLY: env-only}}
    configs: [{source: conf, target: /run/secrets/app.conf}]
secrets:
  token: {external: true}
  env-only: {external: true}
  both: {external: true}
  maybe: {external: true, x-dunnage: {optional: true}}
configs:
  conf: {content: "password={{ secret \"token\" }} other={{ secret \"maybe\" }} {{ none }}\n"}
`
	h.mustDeploy(manifest)
	of := func() map[string]spec.ReplicaStatus {
		out := map[string]spec.ReplicaStatus{}
		for _, r := range h.ready(2) {
			out[r.Service] = r
		}
		return out
	}
	check := func(maybe string) {
		t.Helper()
		rs := of()
		for _, f := range []struct{ service, path, want string }{
			{"root", "/run/secrets/token", "0400 0:0 t0ken-value"},
			{"root", "/run/secrets/deep/er", "0440 7:8 b0th-value"},
			{"root", "/etc/both.conf", "0400 0:0 b0th-value"},
			{"root", "/etc/app.conf", "0400 0:0 password=t0ken-value other=" + maybe + " {{ none }}\n"},
			{"app", "/run/secrets/token", "0400 1000:1000 t0ken-value"},
			{"app", "/run/secrets/app.conf", "0400 1000:1000 password=t0ken-value other=" + maybe + " {{ none }}\n"},
		} {
			if got := h.mode(rs[f.service], f.path) + " " + h.inside(rs[f.service], f.path); got != f.want {
				t.Errorf("%s has %s %q, want %q", f.service, f.path, got, f.want)
			}
		}
		for service, want := range map[string][]string{"root": {"ENV_ONLY=3nv-value", "BOTH=b0th-value"}, "app": {"ENV_ONLY=3nv-value"}} {
			for _, v := range want {
				if env := h.environ(rs[service]); !slices.Contains(env, v) {
					t.Errorf("%s has no %s: %q", service, v, env)
				}
			}
		}
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/secrets/maybe", rs["app"].Pid))
		if there := err == nil; there != (maybe != "") || slices.Contains(h.environ(rs["root"]), "MAYBE="+maybe) != there {
			t.Errorf("the optional one: %v, %q", err, h.environ(rs["root"]))
		}
	}
	check("")
	// `exec` and what it reads go the same way as the program itself.
	if out := h.must("exec", "-p", "forms", "root", "/testapp", "env"); !strings.Contains(out, "BOTH=b0th-value\n") {
		t.Errorf("exec: %s", out)
	}
	for _, value := range []string{"t0ken-value", "3nv-value", "b0th-value"} {
		if found := h.holders(h.lab.Path("state"), value); len(found) > 0 { // snapshots and containerd's database are there
			t.Errorf("%s stands in %v", value, found)
		}
	}
	h.refuses(h.run(nil, "secret", "rm", "token"), 1, "used by forms/app, forms/root")
	h.mustSet("maybe", "late")
	check("late")
	h.must("down", "-p", "forms")
	h.must("secret", "rm", "token", "both", "env-only", "maybe")
	if found := h.holders(h.lab.Path("run/secrets"), "value"); len(found) > 0 {
		t.Errorf("after down %v are there", found)
	}
	h.clean(nil)
}

// A project of whose secrets one isn't there is refused, and what serves goes on.
func TestMissingSecretStopsNothing(t *testing.T) {
	h := newHost(t)
	h.loadKeeper()
	h.mustSet("token", "v1")
	h.mustDeploy(keeper(2, "", ""))
	before := h.ready(2)
	more := strings.Replace(keeper(2, ", secret_env: {OTHER: other}", ""), "token: {external: true}", "token: {external: true}, other: {external: true}", 1)
	rep := h.under(8080, load.Config{Rate: 300}, func() {
		h.refuses(h.deploy(more), 1, "service web: the secret other isn't in the store", "dunnage secret set other", "nothing was changed")
		h.refuses(h.plan(more), 1, "dunnage secret set other")
		h.refuses(h.deploy(strings.Replace(keeper(2, "", ""), "token: {external: true}", "token: {file: ./nowhere}", 1)), 1, "nowhere")
		time.Sleep(time.Second) // what must not happen needs its time
	})
	if after := h.ready(2); pids(after) != pids(before) || len(rep.Versions) != 1 {
		t.Errorf("processes: %s, then %s; answers %v", pids(before), pids(after), rep.Versions)
	}
	h.mustSet("other", "x")
	h.mustDeploy(more)
	h.clean(h.ready(2))
}
