package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// The agent may die at any moment of a change of secrets or keys. Afterwards one
// key file opens everything, each value is the one before or the one that was
// being set, and the record of what was done is whole.
func TestAgentKilledAmongSecrets(t *testing.T) {
	h := newHost(t)
	h.loadKeeper()
	h.mustSet("token", "value-1")
	h.mustDeploy(keeper(1, "", ""))
	before := h.ready(1)
	c := crash{h: h, values: map[string]string{"token": "value-1"}}
	many := spec.SecretRequest{Values: map[string]spec.SecretValue{}}
	for i := range 20 {
		name := fmt.Sprintf("s%d", i)
		c.values[name] = fmt.Sprintf("first of %d", i)
		many.Values[name] = spec.NewSecretValue([]byte(c.values[name]))
	}
	if _, err := h.client().SetSecrets(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("moments of death by seed %d", seed)
	c.rng = rand.New(rand.NewPCG(seed, 1))
	client := h.client()
	for name, do := range map[string]func(ctx context.Context) error{
		"set": func(ctx context.Context) error {
			c.fresh++
			c.name, c.next = fmt.Sprintf("s%d", c.fresh%20), fmt.Sprintf("value %d", c.fresh)
			_, err := client.SetSecrets(ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{c.name: spec.NewSecretValue([]byte(c.next))}})
			return err
		},
		"rotate-key": func(ctx context.Context) error {
			_, err := client.RotateKey(ctx, spec.SecretValue{}, false, spec.Actor{})
			return err
		},
		"rotate-key --full": func(ctx context.Context) error {
			_, err := client.RotateKey(ctx, spec.SecretValue{}, true, spec.Actor{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { c.rounds(h.in(t), do) })
	}
	if after := h.ready(1); pids(after) != pids(before) {
		t.Errorf("processes: %s, then %s", pids(before), pids(after))
	}
	h.has(h.ready(1), "value-1")
	h.must("secret", "audit", "--verify")
	h.clean(before)
}

// crash is what is known of the secrets of an agent that dies.
type crash struct {
	h      *host
	rng    *rand.Rand
	values map[string]string
	fresh  int

	name, next string // what was being set; empty = nothing
}

const crashes = 30 // of each change

func (c *crash) rounds(h *host, do func(context.Context) error) {
	h.t.Helper()
	began := time.Now()
	if err := do(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	took := time.Since(began) // of one that is let be; the first after a start takes longer
	c.settled(h, nil)
	cut := 0
	for range crashes {
		done := make(chan error, 1)
		go func() { done <- do(h.t.Context()) }()
		time.Sleep(time.Duration(c.rng.Int64N(int64(took * 3)))) // the moment of death is the test's input
		killAgent(h)
		err := <-done
		if err != nil {
			cut++
		}
		h.start()
		c.settled(h, err)
	}
	h.t.Logf("%d of %d were cut short; one takes %v", cut, crashes, took)
}

// settled checks what is there after a change that may have been cut short.
func (c *crash) settled(h *host, cut error) {
	h.t.Helper()
	client := h.client()
	_, key, err := client.Secrets(h.t.Context(), "")
	if err != nil || key.Locked != "" {
		h.t.Fatalf("after %v: %v, %s", cut, err, key.Locked)
	}
	is := func(name, value string) bool {
		same, err := client.CompareSecret(h.t.Context(), spec.SecretID{Name: name}, spec.NewSecretValue([]byte(value)), spec.Actor{})
		if err != nil {
			h.t.Fatalf("after %v: %v", cut, err)
		}
		return same
	}
	if c.name != "" && is(c.name, c.next) {
		c.values[c.name] = c.next
	} else if c.name != "" && cut == nil {
		h.t.Fatalf("%s was set, and isn't", c.name)
	}
	c.name = "" // known now; what comes next may set nothing
	for name, value := range c.values {
		if !is(name, value) {
			h.t.Fatalf("after %v: %s has another value", cut, name)
		}
	}
	h.audit()
	entries, err := os.ReadDir(h.lab.Path("state"))
	if err != nil {
		h.t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		if n := e.Name(); strings.HasPrefix(n, "secrets.key") || strings.HasPrefix(n, "dunnage.db") {
			left = append(left, n)
		}
	}
	if !slices.Equal(left, []string{"dunnage.db", "secrets.key"}) {
		h.t.Fatalf("after %v the state directory has %v", cut, left)
	}
	if fi, err := os.Stat(filepath.Join(h.lab.Path("state"), "secrets.key")); err != nil || fi.Mode() != 0o400 || fi.Size() != 65 {
		h.t.Fatalf("after %v the key file is %v, %v", cut, fi, err)
	}
}
