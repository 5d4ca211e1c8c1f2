package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
	"dunnage/test/lab"
	"dunnage/test/load"
)

// receipt is what `dunnage receipt` says of a release of hello.
func (h *host) receipt(release int) (r spec.Receipt) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.must("receipt", "-p", "hello", "--json", fmt.Sprint(release))), &r); err != nil {
		h.t.Fatal(err)
	}
	return r
}

// settled waits until the replaced replicas are gone.
func (h *host) settled(release int) (r spec.Receipt) {
	h.t.Helper()
	h.eventually(time.Minute, "the receipt settles", func() error {
		if r = h.receipt(release); r.Settled.IsZero() {
			return errors.New("it hasn't")
		}
		return nil
	})
	return r
}

// What a receipt says of a redeploy under load is what the load generator and
// conntrack say.
func TestReceipt(t *testing.T) {
	h := newHost(t)
	manifest := func(version string) string {
		return strings.NewReplacer("stop_grace_period: 20s", "stop_grace_period: 1s", "drain: 1s", "drain: 5s").Replace(hello(version, 1, ""))
	}
	h.mustDeploy(manifest("v1"))
	old := h.ready(1)[0].Addresses[0].String()
	open := func() int { // connections to the old replica, as conntrack has them
		out, err := lab.Output(t.Context(), h.lab.OnHost("conntrack", "-L", "-p", "tcp", "--state", "ESTABLISHED", "--reply-src", old)...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(out, "ESTABLISHED")
	}
	download := func(query string) chan error {
		done := make(chan error, 1)
		argv := h.lab.OnClient("curl", "-sS", "-o", "/dev/null", "http://"+h.lab.Host.String()+":8080/download?"+query)
		go func() { done <- exec.CommandContext(t.Context(), argv[0], argv[1:]...).Run() }()
		return done
	}
	const long, brief = 3, 2
	var ends []chan error
	for range long {
		download("bytes=360000000&rate=100000") // an hour
	}
	for range brief {
		ends = append(ends, download("bytes=500000&rate=100000")) // 5 s, and the deploy comes 2 s later at the most
	}
	h.eventually(2*time.Second, "downloads are under way", func() error {
		if n := open(); n < long+brief {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	var out result
	rep := h.under(8080, load.Config{Rate: 100}, func() {
		time.Sleep(500 * time.Millisecond) // of load before
		out = h.deploy(manifest("v2"))
		for _, end := range ends {
			if err := <-end; err != nil {
				t.Errorf("a download that ends in time: %v", err)
			}
		}
	})
	if out.code != 0 || !strings.Contains(out.stdout, "receipt 2: ") {
		t.Errorf("deploy: %+v", out)
	}
	// The agent looks ten times a second, so it may not have seen yet that two ended.
	h.eventually(5*time.Second, "the receipt has the connections that are left", func() error {
		if r := h.receipt(2); r.Draining+r.Cut != long {
			return fmt.Errorf("%d that drain and %d that are cut, not %d (conntrack has %d)", r.Draining, r.Cut, long, open())
		}
		return nil
	})
	r := h.settled(2)
	if r.Outcome != spec.OperationDone || r.From != 1 || r.Cut != long || r.Drained < brief || r.Draining != 0 {
		t.Errorf("%s from %d: %d drained, %d cut, %d draining", r.Outcome, r.From, r.Drained, r.Cut, r.Draining)
	}
	sum := r.Sum()
	if sum.Sent == 0 || sum.Failed != rep.Failed || sum.LongestGap.Std() > 3*time.Second {
		t.Errorf("the load generator: %s; the receipt: %+v", rep, r.Visits)
	}
	if r.Commits == 0 || r.Rules.Added == 0 || r.Rules.Removed == 0 || !strings.HasPrefix(r.Images["web"], "sha256:") {
		t.Errorf("%d commits, rules %+v, images %v", r.Commits, r.Rules, r.Images)
	}
	for _, name := range []string{spec.StepPull, spec.StepCreate, spec.StepStart, spec.StepReady, spec.StepRules, spec.StepDrain, spec.StepStop} {
		if !slices.ContainsFunc(r.Steps, func(s spec.ReceiptStep) bool { return s.Name == name && (s.Took > 0 || name == spec.StepPull) }) {
			t.Errorf("no step %s in %+v", name, r.Steps)
		}
	}
	t.Logf("load generator: %s\n%s", rep, h.must("receipt", "-p", "hello"))
}

// A release that answers its own probes and not its clients loses requests, and
// goes back for that.
func TestMaxFailed(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	h.ready(2)
	time.Sleep(2 * time.Second) // the visitor has seen the port answer
	r := h.deploy(strings.Replace(hello("v2", 2, ""), "8080:80", "8080:81", 1))
	if r.code != 3 || !strings.Contains(r.stderr, "visits of port 8080 failed during the rollout (max_failed 0): ") {
		t.Errorf("deploy: %+v", r)
	}
	h.answers(8080, "version v1")
	receipt := h.settled(2)
	if receipt.Outcome != spec.OperationRolledBack || receipt.Sum().Failed == 0 || !strings.Contains(receipt.Cause, "max_failed 0") || !strings.HasSuffix(receipt.Cause, "release 1 is back") {
		t.Errorf("receipt: %+v", receipt)
	}
	t.Logf("%s\n%s", r.stdout, h.must("receipt", "-p", "hello"))
	h.clean(h.ready(2))
}
