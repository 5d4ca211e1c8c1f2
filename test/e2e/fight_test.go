package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dunnage/api"
	"dunnage/internal/testenv"
	"dunnage/test/load"
)

// A tool that flushes our rules again and again is repaired at once each time,
// and told of. That it comes often makes no gap longer.
func TestFlushedAgainAndAgain(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	h.ready(1)
	client := testenv.OpenNS(t, h.lab.ClientPath())
	traffic, err := h.lab.StartTraffic(filepath.Join(h.tools, "dunnage-load"), load.Config{Addr: h.lab.Host.String() + ":8080", Rate: 100})
	if err != nil {
		t.Fatal(err)
	}
	var gaps []time.Duration
	var failed error
	for range rounds(18, 100) {
		began := time.Now()
		h.sh(t, "iptables -t nat -F")
		gap, err := recovery(client, h.lab.Host.String()+":8080", began)
		gaps, failed = append(gaps, gap), errors.Join(failed, err)
		time.Sleep(time.Until(began.Add(time.Second)))
	}
	rep, err := traffic.Stop()
	if err := errors.Join(failed, err); err != nil {
		t.Fatal(err)
	}
	if p := h.undone(); !strings.Contains(p, "times in the last minute") {
		t.Errorf("told %q", p)
	}
	slices.Sort(gaps)
	worst, bound := gaps[len(gaps)-1], 2*time.Second
	if soakFile != "" {
		bound = time.Second
	}
	row(t, "nat flushed every second under load, until the port answers again", "≤ 1 s each time",
		fmt.Sprintf("%d times, median %d ms, worst %d ms; %d of %d requests failed", len(gaps), gaps[len(gaps)/2].Milliseconds(), worst.Milliseconds(), rep.Failed, rep.Asked), worst <= bound)
}

// Who undoes repairs as fast as he can brings about five a second, which a pause
// of 200 ms allows, and is followed by one as soon as he stops.
func TestFlushedWithoutEnd(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	h.ready(1)
	client := testenv.OpenNS(t, h.lab.ClientPath())
	before, err := h.lab.CPUOf("agent")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	argv := h.lab.OnHost("timeout", "5", "sh", "-c", "while :; do iptables -t nat -F; done")
	const expired = 124 // of timeout(1)
	cmd := exec.Command(argv[0], argv[1:]...)
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != expired {
		t.Fatal(err)
	}
	ended := time.Now()
	took, err := recovery(client, h.lab.Host.String()+":8080", ended)
	if err != nil {
		t.Fatal(err)
	}
	after, err := h.lab.CPUOf("agent")
	if err != nil {
		t.Fatal(err)
	}
	repairs := h.chainRepairs()
	most := 5 + int(time.Since(began)/(200*time.Millisecond)) + 1
	if p := h.undone(); !strings.Contains(p, "times in the last minute") {
		t.Errorf("told %q", p)
	}
	bound := 5 * time.Second
	if soakFile != "" {
		bound = 2 * time.Second
	}
	row(t, "nat flushed without end for 5 s", fmt.Sprintf("repaired ≤ 2 s after it, ≤ %d repairs", most),
		fmt.Sprintf("%d ms; %d repairs, agent's CPU %.2f s", took.Milliseconds(), repairs, (after-before).Seconds()), took <= bound && repairs > 5 && repairs <= most)
}

// chainRepairs is how often the agent has repaired chains, as it counts itself.
func (h *host) chainRepairs() int {
	h.t.Helper()
	const name = `dunnage_repairs_total{kind="chain"} `
	for line := range strings.Lines(h.onSocket()) {
		if number, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.Atoi(strings.TrimSpace(number))
			if err != nil {
				h.t.Fatal(err)
			}
			return n
		}
	}
	h.t.Fatalf("no %sin the metrics", name)
	return 0
}

// undone is what the agent says of repairs that are undone, "" without any.
func (h *host) undone() string {
	h.t.Helper()
	client, err := api.Dial(h.agent.URL(), api.Version{})
	if err != nil {
		h.t.Fatal(err)
	}
	st, err := client.Status(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range st.Problems {
		if strings.Contains(p, "undone by another program") {
			return p
		}
	}
	return ""
}
