package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/api"
	"dunnage/internal/testenv"
	"dunnage/spec"
)

// owner is what the host has of its own, in both backends' form.
const owner = `*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:OWNER -
-A INPUT -p tcp -m tcp --dport 25 -j OWNER
-A FORWARD -p tcp -m tcp --dport 25 -j OWNER
-A OWNER -m comment --comment "no mail from here" -j REJECT
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
-A PREROUTING -p tcp -m tcp --dport 2222 -j REDIRECT --to-ports 22
-A POSTROUTING -o tun9 -j MASQUERADE
COMMIT
`

// docker is what dockerd 20.10 lays when it starts, with a container on 8081.
const docker = `
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT -m addrtype --dst-type LOCAL ! --dst 127.0.0.0/8 -j DOCKER
iptables -t nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables -t nat -A DOCKER -i docker0 -j RETURN
iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80
iptables -N DOCKER
iptables -N DOCKER-ISOLATION-STAGE-1
iptables -N DOCKER-ISOLATION-STAGE-2
iptables -N DOCKER-USER
iptables -I FORWARD -o docker0 -j DOCKER
iptables -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -I FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -I FORWARD -i docker0 -o docker0 -j ACCEPT
iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
iptables -I FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -A DOCKER-USER -j RETURN
iptables -I FORWARD -j DOCKER-USER
iptables -P FORWARD DROP
iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
`

// jump prints the jump from nat's PREROUTING as arguments that sh understands.
const jump = `$(iptables-save -t nat | sed -n 's/^-A PREROUTING \(.*-j DUNNAGE-PREROUTING\)$/\1/p')`

// damages are done by sh on the host, with $link, $addr, $ns and $dir set.
var damages = []struct {
	name, script string
	found        string // what the event says; empty = nothing of ours is damaged
}{
	{"nat flushed", "iptables -t nat -F", "IPv4 nat: chains DUNNAGE-"},
	{"all flushed", "for i in iptables ip6tables; do for t in filter nat raw; do $i -t $t -F; done; done", " emptied"},
	{"nft flush ruleset", "nft flush ruleset", " gone"},
	{"nat dormant", "nft 'add table ip nat { flags dormant; }'", "IPv4 nat: table dormant"},
	{"an old dump restored", "iptables-restore < $dir/owner", "IPv4 filter: chains DUNNAGE-"},
	{"policy DROP", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP", ""},
	{"a rule deleted", "iptables -t nat -D DUNNAGE-PREROUTING 3", "IPv4 nat: chain DUNNAGE-PREROUTING: rule"},
	{"a rule doubled", "eval iptables -t nat -A PREROUTING " + jump, "IPv4 nat: jump from PREROUTING doubled"},
	{"a rule moved", "iptables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 192.0.2.1; j=\"" + jump + "\"; eval iptables -t nat -D PREROUTING $j; eval iptables -t nat -A PREROUTING $j", "IPv4 nat: jump from PREROUTING "},
	{"a DNAT in front", "iptables -t nat -I PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 192.0.2.1", "IPv4 nat: jump from PREROUTING behind '-p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.1'"},
	{"legacy rules", "iptables-legacy -t nat -A PREROUTING -p tcp --dport 8082 -j DNAT --to-destination 192.0.2.1; iptables-legacy -A FORWARD -p tcp --dport 25 -j DROP", ""},
	{"docker beside us", "set -e" + docker, ""},
	{"ip_forward 0", "sysctl -qw net.ipv4.ip_forward=0", "setting net.ipv4.ip_forward: 0 instead of 1"},
	{"veth deleted", "ip link del $link", "link dun"},
	{"route deleted", "ip route del $addr", "route to "},
	{"MAC changed", "ip link set $link address 02:11:22:33:44:55", "hardware address of link dun"},
	{"MAC changed inside", "nsenter --net=$ns ip link set eth0 address 02:11:22:33:44:55", "hardware address of link eth0"},
	{"MTU changed inside", "nsenter --net=$ns ip link set eth0 mtu 576", "MTU of eth0"},
	{"ARP off", "ip link set $link arp off", "ARP of link dun"},
	{"ARP off inside", "nsenter --net=$ns ip link set eth0 arp off", "ARP of link eth0"},
}

// Whatever others do to the host's rules, settings, links and routes, the
// published port is back at once, what was found is told, and their rules stay
// byte for byte as they made them.
func TestDrift(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	client := testenv.OpenNS(t, h.lab.ClientPath())
	h.file("owner", owner)
	replica := h.ready(1)[0]
	addr, ns := replica.Addresses[0], h.agent.RunDir()+"/netns/"+replica.Replica
	times, equal, count := map[string][]time.Duration{}, 0, 0
	for range rounds(1, 10) {
		for _, d := range damages {
			h.cleared(t)
			before := h.repairs()
			count++
			began := time.Now()
			h.sh(t, fmt.Sprintf("link=$(ip -br link | sed -n 's/^\\(dun[0-9a-f]*\\)@.*/\\1/p'); addr=%s; ns=%s; dir=%s; %s", addr, ns, h.dir, d.script))
			foreign := h.foreignRules(t)
			took, err := recovery(client, h.lab.Host.String()+":8080", began)
			if err != nil {
				t.Errorf("%s: %v", d.name, err)
			}
			times[d.name] = append(times[d.name], took)
			h.eventually(time.Minute, "repaired after "+d.name, func() error {
				if got := h.repairs()[len(before):]; d.found != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, d.found) }) {
					return fmt.Errorf("told %q, want %q", got, d.found)
				}
				return nil
			})
			if after := h.foreignRules(t); after == foreign {
				equal++
			} else {
				t.Errorf("%s: rules of others are\n%s\nwere\n%s", d.name, after, foreign)
			}
			if got := h.repairs()[len(before):]; d.found == "" && len(got) > 0 {
				t.Errorf("%s: told %q, and nothing of ours is damaged", d.name, got)
			}
		}
	}
	h.cleared(t)
	h.clean(h.ready(1))

	var all []time.Duration
	for _, d := range damages {
		slices.Sort(times[d.name])
		ts := times[d.name]
		t.Logf("%-22s median %4d ms, worst %4d ms", d.name, ts[len(ts)/2].Milliseconds(), ts[len(ts)-1].Milliseconds())
		all = append(all, ts...)
	}
	slices.Sort(all)
	worst, bound := all[len(all)-1], 30*time.Second
	if soakFile != "" {
		bound = time.Second
	}
	back := 0
	for _, d := range all {
		if d <= bound {
			back++
		}
	}
	row(t, fmt.Sprintf("%d kinds of outside damage, until the port answers again", len(damages)), fmt.Sprintf("%d/%d within 1 s, rules of others equal %d/%d", count, count, count, count),
		fmt.Sprintf("%d/%d, median %d ms, worst %d ms; equal %d/%d", back, count, all[len(all)/2].Milliseconds(), worst.Milliseconds(), equal, count),
		back == count && equal == count)
}

// What others damage while there is no agent is repaired and told by the next
// one, and where nobody has damaged anything, a start tells of nothing.
func TestDriftWithoutAnAgent(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	h.ready(1)
	for _, c := range []struct {
		script string
		found  []string // what each repair says
	}{
		{"true", nil},
		{"iptables -t nat -F DUNNAGE-PUBLISHED; sysctl -qw net.ipv4.ip_forward=0; ip link del $(ip -br link | sed -n 's/^\\(dun[0-9a-f]*\\)@.*/\\1/p')",
			[]string{"chain DUNNAGE-PUBLISHED emptied", "net.ipv4.ip_forward: 0 instead of 1", "link dun"}},
		{"true", nil},
	} {
		before := len(h.repairs())
		killAgent(h)
		h.sh(t, c.script)
		argv := h.lab.OnHost(h.agent.Program, "--host", "unix://"+h.lab.Path("run/agent.sock"), "doctor") // where it is by default
		out, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput()                                     // it fails, for there is no agent
		whole := strings.Contains(string(out), "containers and traffic go on without it") && strings.Contains(string(out), "are as the agent left them")
		for _, want := range c.found {
			if whole = false; !strings.Contains(string(out), want) {
				t.Errorf("after %s, doctor says\n%s", c.script, out)
			}
		}
		if len(c.found) == 0 && !whole {
			t.Errorf("where nobody did anything, doctor says\n%s", out)
		}
		h.start()
		h.ready(1)
		h.eventually(time.Minute, "the port answers after "+c.script, func() error { _, err := h.get(8080, "/"); return err })
		h.eventually(time.Minute, "told of "+c.script, func() error {
			got := h.repairs()[before:]
			for _, want := range c.found {
				if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, want) }) {
					return fmt.Errorf("told %q, want %q", got, want)
				}
			}
			return nil
		})
		if got := h.repairs()[before:]; len(c.found) == 0 && len(got) > 0 {
			t.Errorf("told %q, and nothing was damaged", got)
		}
	}
	h.clean(h.ready(1))
}

// recovery is the time since began until a new connection gets an answer.
func recovery(client *testenv.NS, addr string, began time.Time) (time.Duration, error) {
	var err error
	for time.Since(began) < time.Minute {
		if err = ask(client, addr); err == nil {
			return time.Since(began), nil
		}
	}
	return time.Since(began), err
}

// ask gets a page over a connection of its own. It gives up sooner than TCP
// asks again, so that it is known when the first SYN would have been answered.
func ask(client *testenv.NS, addr string) error {
	c, err := client.Dial("tcp", addr, 50*time.Millisecond)
	if err != nil {
		time.Sleep(time.Millisecond) // a refusal comes at once
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.Contains(line, " 200 ") {
		err = errors.New(strings.TrimSpace(line))
	}
	return err
}

// sh runs a script on the host.
func (h *host) sh(t *testing.T, script string) string {
	t.Helper()
	argv := h.lab.OnHost("sh", "-c", script)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// cleared makes the owner's rules what they were at first, and waits until ours
// are equal.
func (h *host) cleared(t *testing.T) {
	t.Helper()
	h.sh(t, `for i in iptables-legacy ip6tables-legacy; do for t in $(cat /proc/net/ip_tables_names); do $i -t $t -F; done; done
		nft flush ruleset; iptables-restore < `+h.dir+`/owner; ip6tables-restore < `+h.dir+`/owner`)
	h.eventually(time.Minute, "the rules are ours again", func() error {
		var set spec.RuleSet
		if err := json.Unmarshal([]byte(h.must("net", "rules", "--json")), &set); err != nil {
			return err
		}
		if set.Rendered != set.Kernel {
			return errors.New("they differ")
		}
		return nil
	})
}

// repairs are what the agent has told of repairs so far.
func (h *host) repairs() []string {
	h.t.Helper()
	client, err := api.Dial(h.agent.URL(), api.Version{})
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	err = client.Events(h.t.Context(), spec.EventRequest{}, func(e spec.Event) error {
		if e.Kind == spec.EventRepaired {
			out = append(out, e.Message)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// foreignRules are the rules of others in both backends and families, byte for
// byte, without counters, dates and tables that are as the kernel makes them.
func (h *host) foreignRules(t *testing.T) string {
	t.Helper()
	var tables []string
	for table := range strings.SplitSeq(h.sh(t, "for i in iptables ip6tables; do $i-nft-save; $i-legacy-save; done 2>/dev/null"), "\n*") {
		var keep []string
		for line := range strings.Lines(table) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " [")
			if !strings.HasPrefix(line, "#") && !strings.Contains(line, "DUNNAGE-") && !(strings.HasPrefix(line, ":") && strings.HasSuffix(line, " ACCEPT")) {
				keep = append(keep, line)
			}
		}
		if len(keep) > len([]string{"name", "COMMIT"}) {
			tables = append(tables, strings.Join(keep, "\n"))
		}
	}
	slices.Sort(tables)
	return strings.Join(tables, "\n")
}
