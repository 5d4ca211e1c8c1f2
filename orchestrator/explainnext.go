package orchestrator

import (
	"fmt"
	"net/netip"
	"strings"

	"dunnage/spec"
)

// blocked says what to do about the rule that ends it.
func (a answers) blocked(w spec.ExplainedWay, ends []spec.TraceStep) []string {
	if len(ends) == 0 {
		return nil
	}
	s := ends[0]
	tool, table, chain := place(s.Where)
	switch {
	case isPolicy(s):
		return []string{fmt.Sprintf("`%s` lists it; the agent leaves rules of others alone: whoever added it has to delete it (`%s del %s`), or to leave dunnage's pool out of it", s.Where, s.Where, s.Rule)}
	case isIPsec(s):
		remove := "ip xfrm policy delete " + s.Rule
		if way, ok := strings.CutPrefix(s.Rule, "the default, "); ok {
			remove = "ip xfrm policy setdefault " + strings.Replace(way, "block", "accept", 1)
		}
		return []string{fmt.Sprintf("`ip -s xfrm policy` lists it; `%s` takes it away, but a program such as an IPsec daemon may have set it: then it has to let this traffic pass", remove)}
	case isZone(s):
		show, remove := chainOf(s)
		return []string{fmt.Sprintf("%s shows the chain; put the answers into the same zone, or %s", show, remove)}
	case isAtLink(s):
		order := "before"
		if strings.HasPrefix(s.Rule, egressRule) {
			order = "behind"
		}
		return []string{fmt.Sprintf("`nft list table %s` shows what %s drops on its link, %s all other rules: that isn't followed here", table, chain, order)}
	case s.Where == "route" && strings.Contains(s.What, "forwards nothing that comes by"): // a link of others
		_, setting, _ := strings.Cut(s.What, "forwards nothing that comes by ")
		_, setting, _ = strings.Cut(setting, ": ")
		setting = strings.TrimSuffix(setting, " is 0")
		return []string{fmt.Sprintf("`sysctl -w %s=1`: the agent leaves links of others alone; `grep -rs forwarding /etc/sysctl.conf /etc/sysctl.d` shows what may have set it", setting)}
	case s.Where == "route" && strings.Contains(s.What, "forward"):
		return []string{a.repairs("the agent turns forwarding on within a second"), "if it stays off, look for what turns it off: `grep -r ip_forward /etc/sysctl.d /etc/sysctl.conf`"}
	case s.Where == "route":
		return a.unrouted(s)
	case s.Owner == spec.OwnerDunnage:
		return []string{"replicas are reached by published ports, and by members of their networks: docs/rules.md, \"Who reaches whom\""}
	case s.Owner == spec.OwnerUser:
		return []string{fmt.Sprintf("it is a rule of yours: `%s -t %s -vnL %s --line-numbers` shows the chain; delete it (`%s -t %s -D %s %d`), or narrow it", tool, table, chain, tool, table, chain, s.Number)}
	case s.Owner == spec.OwnerUFW:
		return []string{"`ufw route allow` lets forwarded traffic through; or put what ufw shall block into DUNNAGE-USER, and let it accept the rest"}
	case s.Owner == spec.OwnerFirewalld:
		return []string{"`firewall-cmd --get-active-zones` shows the zone of the link; a zone with target ACCEPT, or `--add-forward`, lets forwarded traffic through"}
	}
	return []string{final(w.Trace, s)}
}

// isPolicy reports whether the step is a rule of policy routing.
func isPolicy(s spec.TraceStep) bool { return s.Where == "ip rule" || s.Where == "ip -6 rule" }

// isIPsec reports whether the step is a policy of IPsec.
func isIPsec(s spec.TraceStep) bool { return s.Where == "ip xfrm policy" }

// isZone reports whether the step is a rule that keeps answers from being known as such.
func isZone(s spec.TraceStep) bool {
	return strings.HasPrefix(s.What, "the connection is in conntrack zone ")
}

// isAtLink reports whether the step is a chain of nft at a link, before all hooks or
// behind them.
func isAtLink(s spec.TraceStep) bool {
	return strings.HasPrefix(s.Rule, "hook ingress on ") || strings.HasPrefix(s.Rule, egressRule)
}

const egressRule = "hook egress on "

// unrouted says what to do about a missing route. The agent lays those to replicas.
func (a answers) unrouted(s spec.TraceStep) []string {
	const leaves = "; the agent leaves the host's own routes alone: whoever sets up the host's network has to put it right"
	text, _, _ := strings.Cut(s.What, ": ")
	if to, err := netip.ParsePrefix(text); err == nil { // of some clients
		tool := "ip"
		if to.Addr().Is6() {
			tool = "ip -6"
		}
		return []string{fmt.Sprintf("`%s route show exact %s` shows it%s", tool, to, leaves)}
	}
	to, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	shown := fmt.Sprintf("`ip route get %s` shows it", to)
	switch _, known := a.at(to); {
	case known:
		return []string{shown, a.repairs("a running agent lays missing routes to replicas anew within a second")}
	case to.IsLoopback():
		return []string{fmt.Sprintf("`ip address show lo` shows whether lo is up and has %s; the agent leaves the host's own addresses alone: `ip link set lo up` and `ip address add 127.0.0.1/8 dev lo` put back what is usual", to)}
	}
	return []string{shown + leaves}
}

// partly says what to do where only some replicas are reached.
func (a answers) partly(w spec.ExplainedWay, ends []spec.TraceStep) []string {
	if len(ends) > 0 && isPolicy(ends[0]) {
		return a.blocked(w, ends)
	}
	if len(ends) > 0 && ends[0].Where == "route" {
		return []string{a.repairs("a running agent lays missing routes anew within a second; `dunnage events` says what it found")}
	}
	return nil
}

// place takes a step's "iptables-nft filter FORWARD" apart.
func place(where string) (tool, table, chain string) {
	f := strings.Fields(where)
	if len(f) < 3 {
		return where, "", ""
	}
	return f[0], strings.Join(f[1:len(f)-1], " "), f[len(f)-1]
}
