package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// Without the right key what runs goes on, and what needs a secret waits until
// it is back.
func TestKeyFileLost(t *testing.T) {
	h := newHost(t)
	h.loadKeeper()
	h.mustSet("token", "value-1")
	h.mustDeploy(keeper(1, "", "    restart: always\n"))
	before := h.ready(1)
	path := h.lab.Path("state/secrets.key")
	key, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if text == "" {
			return
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"missing":       {"", 0, "the key file " + path + " is missing; restore it from its copy"},
		"another":       {strings.Repeat("ab", 32) + "\n", 0o400, "isn't the one that the store was sealed with"},
		"cut":           {string(key[:40]), 0o400, "restore it from its copy"},
		"for everybody": {string(key), 0o444, "chmod 0400 " + path},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			put(c.text, c.mode)
			killAgent(h)
			h.start()
			if after := h.ready(1); pids(after) != pids(before) {
				t.Errorf("processes: %s, then %s", pids(before), pids(after))
			}
			h.refuses(h.run(nil, "ps"), 0, "secrets are locked", c.want)
			h.refuses(h.run(nil, "secret", "ls"), 0, c.want)
			h.refuses(h.set("token", "value-2"), 1, c.want)
			h.refuses(h.runIn("value-1", nil, "secret", "compare", "token"), 1, c.want)
			h.refuses(h.run(nil, "secret", "rotate-key"), 1, c.want)
			h.refuses(h.run(nil, "unlock"), 1, c.want)
			put(string(key), 0o400)
			h.must("unlock")
			h.is("token", "value-1")
		})
	}

	put("", 0)
	killAgent(h)
	h.start()
	h.killPid(before[0].Pid)
	h.eventually(10*time.Second, "ps says why the replica waits", func() error {
		out := h.run(nil, "ps")
		for line := range strings.Lines(out.stderr) {
			if strings.Contains(line, before[0].Replica) && strings.Contains(line, "secrets are locked") {
				return nil
			}
		}
		return errors.New(out.stderr)
	})
	h.refuses(h.deploy(keeper(1, "", "    restart: always\n    environment: {A: b}\n")), 1, "secrets are locked")
	h.mustDeploy("name: plain\nservices: {web: {image: \"example.org/hello:v1\"}}\n")
	put(string(key), 0o400)
	killAgent(h)
	h.start()
	h.has(h.ready(2)[:1], "value-1")

	// While secrets are open a lost key can be replaced.
	put("", 0)
	doctor := func() result {
		r := h.run(nil, "doctor")
		r.stderr += r.stdout
		return r
	}
	h.refuses(doctor(), 3, "the next start of the agent finds them locked", "rotate-key")
	h.must("secret", "rotate-key")
	if r := doctor(); r.code != 0 {
		t.Errorf("doctor: %+v", r)
	}

	// Afterwards they are given up, and set anew.
	put("", 0)
	killAgent(h)
	h.start()
	h.refuses(doctor(), 3, "is missing", "dunnage secret reset-key")
	put(strings.Repeat("ab", 32)+"\n", 0o400)
	h.refuses(h.run(nil, "secret", "reset-key", "--yes"), 1, "there is a key file", "move it away")
	put("", 0)
	h.must("secret", "reset-key", "--yes")
	h.killPid(h.ready(2)[0].Pid)
	h.eventually(10*time.Second, "ps says what the replica waits for", func() error {
		if out := h.run(nil, "ps"); !strings.Contains(out.stdout+out.stderr, "the secret token isn't in the store") {
			return fmt.Errorf("%+v", out)
		}
		return nil
	})
	h.mustSet("token", "value-3")
	h.has(h.ready(2)[:1], "value-3")
	h.is("token", "value-3")
	h.audit()
}

// The key comes from a file, a passphrase, a command or a credential, and moves
// from one to the next. After a reboot what needs a secret waits for a passphrase.
func TestKeySources(t *testing.T) {
	h := newHost(t)
	h.loadKeeper()
	h.mustSet("token", "value-1")
	h.mustDeploy(keeper(2, "", ""))
	h.ready(2)
	restart := func(flags ...string) {
		t.Helper()
		killAgent(h)
		h.agent.Flags = flags
		h.start()
	}
	rotate := func(stdin string) {
		t.Helper()
		if r := h.runIn(stdin, nil, "secret", "rotate-key"); r.code != 0 {
			t.Fatalf("rotate-key: %+v", r)
		}
		h.is("token", "value-1")
	}

	restart("--key-source", "passphrase", "--former-key-source", "file")
	rotate("correct horse\n")
	h.reboot()
	h.agent.Flags = []string{"--key-source", "passphrase"}
	h.start()
	h.eventually(20*time.Second, "the replicas wait", func() error {
		rs := h.ps()
		for _, r := range rs {
			if r.Pid != 0 || !strings.Contains(r.Detail, "secrets are locked") {
				return fmt.Errorf("%+v", r)
			}
		}
		if len(rs) != 2 {
			return fmt.Errorf("%d replicas", len(rs))
		}
		return nil
	})
	h.refuses(h.run(nil, "ps"), 0, "secrets are locked", "dunnage unlock")
	h.refuses(h.runIn("wrong horse\n", nil, "unlock"), 1, "the passphrase is wrong")
	if r := h.runIn("correct horse\n", nil, "unlock"); r.code != 0 {
		t.Fatalf("unlock: %+v", r)
	}
	h.has(h.ready(2), "value-1")

	script, key := filepath.Join(h.dir, "key.sh"), filepath.Join(h.dir, "key")
	h.file("key", strings.Repeat("5a", 32)+"\n")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec cat \"$1\"\n"), 0o700); err != nil { // the path has no space in it
		t.Fatal(err)
	}
	command := "command:" + script + " " + key
	restart("--key-source", command, "--former-key-source", "passphrase")
	h.refuses(h.run(nil, "ps"), 0, "secrets are locked")
	if r := h.runIn("correct horse\n", nil, "unlock"); r.code != 0 {
		t.Fatalf("unlock: %+v", r)
	}
	rotate("")
	restart("--key-source", command)
	h.is("token", "value-1")

	h.agent.Env = []string{"CREDENTIALS_DIRECTORY=" + h.dir}
	h.file("dunnage.key", strings.Repeat("a5", 32)+"\n")
	restart("--key-source", "credential", "--former-key-source", command)
	rotate("")
	restart("--key-source", "credential")
	h.is("token", "value-1")
	h.refuses(h.run(nil, "secret", "rotate-key"), 1, "dunnage.key.new")
	h.file("dunnage.key.new", strings.Repeat("0f", 32)+"\n")
	rotate("")
	restart("--key-source", "credential")
	h.is("token", "value-1")

	restart("--former-key-source", "credential")
	rotate("")
	h.agent.Env = nil
	restart()
	h.is("token", "value-1")
	h.has(h.ready(2), "value-1")
	kinds := map[spec.AuditKind]int{}
	for _, e := range h.audit() {
		kinds[e.Kind]++
	}
	if kinds[spec.AuditRotate] != 6 || kinds[spec.AuditUnlock] != 3 { // one of each was refused
		t.Errorf("audit has %v", kinds)
	}
}
