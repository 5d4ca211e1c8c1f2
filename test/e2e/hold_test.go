package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/spec"
	"dunnage/test/lab"
	"dunnage/test/load"
)

// holding is a hello that is replaced stop-first, and a neighbour to ask it from.
func holding(version, more string) string {
	text := hello(version, 1, more+`  side:
    image: example.org/hello:v1
`)
	return strings.Replace(text, "{replicas: 1}", "{replicas: 1, update_config: {order: stop-first}}", 1)
}

// traffic is a load generator in the network namespace that argv leads to.
type traffic struct {
	what string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

func (h *host) traffic(what string, argv []string, c load.Config) *traffic {
	h.t.Helper()
	argv = append(argv, filepath.Join(h.tools, "dunnage-load"), "-json", "-addr", c.Addr, "-timeout", c.Timeout.String(),
		"-rate", fmt.Sprint(c.Rate), "-keepalive", fmt.Sprint(c.KeepAlive))
	t := &traffic{what: what, cmd: exec.Command(argv[0], argv[1:]...)}
	t.cmd.Stdout, t.cmd.Stderr = &t.out, os.Stderr
	if err := t.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return t
}

func (t *traffic) stop(h *host) load.Report {
	h.t.Helper()
	if err := t.cmd.Process.Signal(syscall.SIGINT); err != nil {
		h.t.Fatal(err)
	}
	_ = t.cmd.Wait() // 1 says that requests failed, and the report says which
	var rep load.Report
	if err := json.Unmarshal(t.out.Bytes(), &rep); err != nil {
		h.t.Fatalf("%s: %v", t.what, err)
	}
	return rep
}

// serviceAddress is the service's stable address.
func (h *host) serviceAddress(service string) netip.Addr {
	h.t.Helper()
	var networks []spec.NetworkStatus
	if err := json.Unmarshal([]byte(h.must("net", "ls", "--json")), &networks); err != nil {
		h.t.Fatal(err)
	}
	for _, n := range networks {
		for _, s := range n.Services {
			if s.Service == service {
				return s.Addr
			}
		}
	}
	h.t.Fatalf("no address of %s in %+v", service, networks)
	return netip.Addr{}
}

// networkOf leads into the network of a service's only replica.
func (h *host) networkOf(service string) []string {
	h.t.Helper()
	for _, r := range h.ps() {
		if r.Service == service {
			return []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", r.Pid), "--"}
		}
	}
	h.t.Fatal("no replica of " + service)
	return nil
}

// A stop-first redeploy shows as latency: clients that are patient for 5 s lose
// nothing, wherever they are.
func TestStopFirstIsHeld(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(holding("v1", ""))
	h.ready(2)
	addr := h.lab.Host.String() + ":8080"
	c := load.Config{Timeout: 5 * time.Second, Rate: 60, KeepAlive: 2}
	from := func(what string, argv []string, addr string) *traffic {
		c.Addr = addr
		return h.traffic(what, argv, c)
	}
	all := []*traffic{
		from("from outside", h.lab.OnClient(), addr),
		from("from the host", h.lab.OnHost(), "127.0.0.1:8080"),
		from("from a replica", h.networkOf("side"), h.serviceAddress("web").String()+":80"),
	}
	n := rounds(1, 20)
	for i := range n {
		if i > 0 {
			time.Sleep(c.Timeout) // nobody is held by two of them
		}
		h.mustDeploy(holding([]string{"v2", "v1"}[i%2], ""))
		h.answers(8080, "version "+[]string{"v2", "v1"}[i%2])
	}
	failed, asked := 0, 0
	var detail strings.Builder
	for _, x := range all {
		rep := x.stop(h)
		failed, asked = failed+rep.Failed, asked+rep.Asked
		fmt.Fprintf(&detail, "%s: %s\n", x.what, rep)
		if rep.Versions["v2"] == 0 {
			t.Errorf("%s: versions that answered: %v", x.what, rep.Versions)
		}
	}
	t.Log(detail.String())
	row(t, "stop-first redeploy with hold, clients with a 5 s timeout", "0 failed",
		fmt.Sprintf("%d of %d failed in %d redeploys", failed, asked, n), failed == 0 && asked > 50)
	h.clean(h.ready(2))
}

// A hold ends: who waits is reset at its next try, who comes later at once. What
// has no connection isn't held.
func TestHoldEnds(t *testing.T) {
	h := newHost(t)
	down := holding("v1", "      hold: 3s\n    command: [\"-no-such-flag\"]\n")
	down = strings.Replace(down, `["8080:80"]`, `["8080:80", "8053:53/udp"]`, 1)
	deployed := make(chan result, 1)
	path := h.file("compose.yaml", down)
	go func() { deployed <- h.run(nil, "deploy", "-f", path) }()
	h.eventually(20*time.Second, "the port is held", func() error {
		rules := h.must("net", "rules")
		if !strings.Contains(rules, "web has no ready replica") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	udp, _ := lab.Output(t.Context(), h.lab.OnClient("sh", "-c", "echo x | socat -t 1 - UDP4:"+h.lab.Host.String()+":8053 2>&1; true")...)
	if !strings.Contains(udp, "refused") {
		t.Errorf("a datagram: %q", udp)
	}
	ask := func(argv []string, addr string) (took time.Duration, refused bool) {
		begun := time.Now()
		argv = append(argv, "curl", "-sS", "-m", "20", "-o", "/dev/null", "http://"+addr+"/")
		err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).Run()
		exit, ok := err.(*exec.ExitError)
		return time.Since(begun), ok && exit.ExitCode() == 7
	}
	outside := h.lab.Host.String() + ":8080"
	if took, refused := ask(h.lab.OnClient(), outside); !refused || took < time.Second {
		t.Errorf("one that is held: refused %t after %s", refused, took)
	}
	for what, x := range map[string][2]any{
		"from outside":  {h.lab.OnClient(), outside},
		"from the host": {h.lab.OnHost(), "127.0.0.1:8080"},
	} {
		if took, refused := ask(x[0].([]string), x[1].(string)); !refused || took > 900*time.Millisecond {
			t.Errorf("%s, when the hold is over: refused %t after %s", what, refused, took)
		}
	}
	waits, refuses := 0, 0
	for _, e := range h.events("hello") {
		if e.Service == "web" && strings.HasSuffix(e.Message, "connections wait") {
			waits++
		} else if e.Service == "web" && strings.HasSuffix(e.Message, "connections are refused") {
			refuses++
		}
	}
	if refuses != 1 || waits != 1 {
		t.Errorf("told %d times that they wait, %d times that they are refused", waits, refuses)
	}
	h.must("down", "-p", "hello")
	<-deployed
}
