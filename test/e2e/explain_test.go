package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// explained is what explain says of a port, and its exit code.
func (h *host) explained(asked ...string) (spec.Explanation, int) {
	h.t.Helper()
	r := h.run(nil, append([]string{"explain", "--json"}, asked...)...)
	var e spec.Explanation
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil {
		h.t.Fatalf("explain %v: %v\n%s%s", asked, err, r.stdout, r.stderr)
	}
	return e, r.code
}

// What keeps clients from a service is named: a rule of somebody else, a
// connection that leads nowhere, no replica, a port that nobody publishes.
func TestExplain(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	replica := h.ready(1)[0]
	want := func(what string, e spec.Explanation, code, wanted int, words ...string) {
		t.Helper()
		text := strings.Join(append(e.Next, e.Verdict), "\n")
		for _, w := range e.Ways {
			text += "\n" + strings.Join(append(w.Stale, w.Verdict), "\n")
		}
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%s: %q isn't in %s", what, word, text)
			}
		}
		if code != wanted || e.OK != (wanted == 0) {
			t.Errorf("%s: exit code %d, %v: %s", what, code, e.OK, text)
		}
	}
	for _, asked := range []string{"8080", "web", fmt.Sprintf("tcp://%s:8080", h.lab.Host)} {
		e, code := h.explained(asked)
		want(asked, e, code, 0, "connections reach web-1")
		if r := e.Ways[0].Reach; len(r) != 1 || r[0].Replica != replica.Replica {
			t.Errorf("%s: %+v", asked, e.Ways[0])
		}
	}
	e, code := h.explained("9999")
	want("not published", e, code, 3, "port 9999/tcp isn't published, and nobody on the host listens")
	if out := h.run(nil, "explain", "9999").stdout; !strings.HasPrefix(out, "port 9999/tcp isn't published") || strings.Count(out, "isn't published") != 1 {
		t.Errorf("it isn't said first, or not once:\n%s", out)
	}

	// What doesn't end it isn't blamed.
	h.sh(t, "iptables -I INPUT -p tcp -m multiport --dports 8080,9999 -j DROP")
	e, code = h.explained("8080")
	want("a rule for the host itself", e, code, 0, "connections reach web-1")
	if e, _ = h.explained("9999"); !strings.HasPrefix(e.Verdict, "port 9999/tcp isn't published") || strings.Contains(strings.Join(e.Next, "\n"), "INPUT") {
		t.Errorf("not published, and dropped: %q %q", e.Verdict, e.Next)
	}
	e, code = h.explained("tcp://198.51.100.77:8080")
	want("not the host's address", e, code, 3, "no link of the host has the address 198.51.100.77", "ip -brief address")
	h.sh(t, "iptables -D INPUT -p tcp -m multiport --dports 8080,9999 -j DROP")

	h.sh(t, fmt.Sprintf("conntrack -I -p tcp -s 203.0.113.9 -d %s --sport 5555 --dport 8080 -r 10.208.16.250 -q 203.0.113.9 --reply-port-src 80 --reply-port-dst 5555 --state ESTABLISHED -t 300", h.lab.Host))
	e, code = h.explained("8080")
	want("a stale connection", e, code, 0, "1 TCP connection leads to 10.208.16.250, which is no replica's", "conntrack -D -p tcp --orig-dst "+h.lab.Host.String())

	// In a table whose order dunnage has no say in.
	const rule = `-p tcp -m tcp --dport 80 -m comment --comment "closed for the night" -j DROP`
	h.sh(t, "iptables -t mangle -A FORWARD "+rule)
	began := time.Now()
	r := h.run(nil, "explain", "8080")
	if took := time.Since(began); r.code != 3 || took > 10*time.Second || !strings.Contains(r.stdout, "mangle FORWARD 1 (other): dropped") || !strings.Contains(r.stdout, rule) {
		t.Errorf("a foreign DROP: exit code %d after %s\n%s%s", r.code, took, r.stdout, r.stderr)
	}
	h.sh(t, "iptables -t mangle -D FORWARD "+rule)

	h.must("stop", "-p", "hello", "web")
	e, code = h.explained("8080")
	want("stopped", e, code, 3, "hello/web was stopped on request", "`dunnage start -p hello web`")
}

// What plan says of the rules is what the deploy then writes.
func TestPlanIsTrue(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	h.ready(2)
	h.file("compose.yaml", hello("v2", 2, ""))
	var said spec.Preview
	if err := json.Unmarshal([]byte(h.must("plan", "--json", "-f", h.dir+"/compose.yaml")), &said); err != nil {
		t.Fatal(err)
	}
	if said.Rules.Added == 0 || len(said.Rules.Lines) != said.Rules.Added+said.Rules.Removed || said.Services[0].Gap != "none: start-first" || len(said.Pull) > 0 {
		t.Errorf("%+v", said)
	}
	h.mustDeploy(hello("v2", 2, ""))
	h.ready(2)
	var did spec.Receipt
	if err := json.Unmarshal([]byte(h.must("receipt", "-p", "hello", "--json")), &did); err != nil {
		t.Fatal(err)
	}
	if did.Rules != said.Rules.RuleChange {
		t.Errorf("said %+v, did %+v", said.Rules.RuleChange, did.Rules)
	}
}
