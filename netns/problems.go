package netns

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// inUse reports whether the backend has tables at all, without making any:
// listing a legacy table creates it.
func (p programs) inUse() bool {
	if !p.found() {
		return false
	}
	if !p.legacy {
		return true
	}
	names, err := p.xtables.present(p.proto)
	return err == nil && len(names) > 0
}

// Problems names what others have set up that may stop replicas' traffic: that
// the host has no IPv6 (see lacksIPv6), that its former settings are lost, an uplink that doesn't forward, a network of the host in a pool, a
// dropping rule before dunnage's in FORWARD, or rules in the backend that
// dunnage doesn't use. A drop in either backend is final, and of translations
// those of the backend that was used last come first. dunnage respects
// them and changes nothing. The list is empty when there is nothing to tell.
// To ask often is cheap: see reading.
func (n *Network) Problems(ctx context.Context) ([]string, error) {
	var all []string
	if why := n.lacksIPv6(); why != "" {
		all = append(all, why)
	}
	if stay, why := n.lostSettings(); len(stay) > 0 {
		all = append(all, fmt.Sprintf("nobody knows any more what these settings were before dunnage (%v): %s; after `dunnage agent --uninstall`, which leaves them so, set them by hand; {} written to %s ends this warning", why, strings.Join(stay, ", "), n.settingsFile()))
	}
	have, err := n.kernelState()
	if err != nil {
		return nil, err
	}
	for _, l := range have.uplinks {
		if have.stuck[l.Index] {
			s := linkForwarding(l.Name).dotted()
			all = append(all, fmt.Sprintf("the host passes on nothing that comes by its link %s, so clients behind it reach no replica: %s is 0; `sysctl -w %s=1`, and look for what sets it: `grep -rs forwarding /etc/sysctl.conf /etc/sysctl.d`", l.Name, s, s))
		}
	}
	overlaps, err := n.seen.overlapsOnce(n.Overlaps)
	if err != nil {
		return nil, err
	}
	for _, o := range overlaps {
		all = append(all, o+", which replicas can't reach and which may not reach the host; give that another address, or take every project down, start the agent with another pool, and deploy again")
	}
	about := traffic{pools: n.pools()}
	for _, l := range have.uplinks {
		about.uplinks = append(about.uplinks, l.Name)
	}
	for _, p := range []programs{n.tables.v4, n.tables.v6, n.tables.other4, n.tables.other6} {
		if !p.inUse() {
			continue
		}
		have, err := p.rules(ctx)
		if err != nil {
			return nil, err
		}
		text := have.text
		all = append(all, forwardDrops(p.name(), text, about)...)
		if p.last == n.tables.other4.last || p.last == n.tables.other6.last {
			for _, rule := range n.rendered.taken(text) {
				all = append(all, fmt.Sprintf("%s: rule %q redirects a port that a release publishes, and comes before dunnage's if its backend was used later; delete it (`%s`)", p.name(), rule, deletes(p.name(), rule)))
			}
		}
		for _, rule := range dropsElsewhere(text, about) {
			all = append(all, fmt.Sprintf("%s: rule %q drops traffic of replicas before dunnage's rules see it; delete it (`%s`), or narrow it", p.name(), rule, deletes(p.name(), rule)))
		}
	}
	return all, nil
}

// NotForwarding lists the settings of links of ours, and of those by which
// clients come, that keep IPv4 packets from being passed on, in sysctl's form.
func (n *Network) NotForwarding() ([]string, error) {
	have, err := n.kernelState()
	if err != nil {
		return nil, err
	}
	links := slices.Concat(have.uplinks, slices.Collect(maps.Values(have.links)))
	if have.visitor != nil {
		links = append(links, have.visitor)
	}
	var off []string
	for _, l := range links {
		if have.stuck[l.Index] {
			off = append(off, linkForwarding(l.Name).dotted())
		}
	}
	slices.Sort(off)
	return off, nil
}

func (p programs) name() string {
	name := "iptables-nft"
	if p.legacy {
		name = "iptables-legacy"
	}
	if p.proto == iptables.ProtocolIPv6 {
		name = strings.Replace(name, "iptables", "ip6tables", 1)
	}
	return name
}

// forwardDrops tells of the rules of FORWARD that drop or reject traffic of
// replicas, and that a packet meets before dunnage's jump; in a backend without
// the jump, of all of them and of a dropping policy: nothing that dunnage accepts
// changes what those do.
func forwardDrops(backend, text string, about traffic) []string {
	_, filter, _ := strings.Cut(text, "*filter\n")
	filter, _, _ = strings.Cut(filter, "\nCOMMIT")
	jump := strings.Contains(filter, " -j DUNNAGE-FORWARD")
	var out []string
	for line := range strings.Lines(filter) {
		line = strings.TrimSpace(line)
		rule := "-t filter " + line
		switch {
		case strings.HasPrefix(line, "-A FORWARD ") && strings.HasSuffix(line, " -j DUNNAGE-FORWARD"):
			return out
		case strings.HasPrefix(line, ":FORWARD DROP") && !jump:
			out = append(out, fmt.Sprintf("%s: the policy DROP of FORWARD drops traffic of replicas, whatever dunnage's own rules accept; "+
				"set another (`%s -P FORWARD ACCEPT`), or add rules that accept what goes to and comes from %s+", backend, backend, rules.LinkPrefix))
		case !strings.HasPrefix(line, "-A FORWARD ") || !strings.Contains(line, " -j DROP") && !strings.Contains(line, " -j REJECT") || !about.metBy(line):
		case jump:
			out = append(out, fmt.Sprintf("%s: rule %q comes before dunnage's and may drop traffic of replicas; delete it (`%s`), narrow it, or move it behind the jump to DUNNAGE-FORWARD", backend, rule, deletes(backend, rule)))
		default:
			out = append(out, fmt.Sprintf("%s: rule %q may drop traffic of replicas, whatever dunnage's own rules accept; delete it (`%s`), or narrow it", backend, rule, deletes(backend, rule)))
		}
	}
	return out
}

// deletes is the command that deletes a rule of "-t TABLE -A CHAIN ...".
func deletes(backend, rule string) string {
	return backend + " " + strings.Replace(rule, " -A ", " -D ", 1)
}

// taken lists the nat rules that lead a port which a release publishes elsewhere.
func (m *rendered) taken(text string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, nat, _ := strings.Cut(text, "*nat\n")
	nat, _, _ = strings.Cut(nat, "\nCOMMIT")
	var out []string
	for line := range strings.Lines(nat) {
		line = strings.TrimSpace(line)
		if !strings.Contains(line, " -j DNAT ") && !strings.Contains(line, " -j REDIRECT") {
			continue
		}
		if slices.ContainsFunc(m.routing.Published, func(p spec.PublishedRoute) bool {
			return strings.Contains(line+" ", fmt.Sprintf(" -p %s ", p.Protocol)) && strings.Contains(line+" ", fmt.Sprintf(" --dport %d ", p.Port))
		}) {
			out = append(out, "-t nat "+line)
		}
	}
	return out
}

// dropsElsewhere lists the dropping rules of raw and mangle, which every packet
// meets first, that take traffic of replicas.
func dropsElsewhere(text string, about traffic) []string {
	var drops []string
	for _, table := range []string{"raw", "mangle"} {
		_, part, _ := strings.Cut(text, "*"+table+"\n")
		part, _, _ = strings.Cut(part, "\nCOMMIT")
		for line := range strings.Lines(part) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "-A ") && strings.HasSuffix(line, " -j DROP") && !strings.Contains(line, "DUNNAGE-") && about.metBy(line) {
				drops = append(drops, "-t "+table+" "+line)
			}
		}
	}
	return drops
}

// traffic is by what replicas' traffic is known.
type traffic struct {
	pools   []netip.Prefix
	uplinks []string // by which clients come
}

// metBy reports whether a rule of "-A CHAIN ..." is sure to take traffic of
// replicas: it names their links or addresses, or nothing that spares them. What
// blocks an address of the world, some ports, a list or another link is the
// owner's business; where it ends the connections to a port, Trace finds that.
func (t traffic) metBy(rule string) bool {
	f := strings.Fields(ruleComment.ReplaceAllString(rule, ""))
	named, spared := false, false
	byOthers, source := false, false // -i of a link of others, -s of a pool
	for i := 2; i+1 < len(f); i++ {
		value, negated := f[i+1], f[i-1] == "!"
		switch option := f[i]; option {
		case "-i", "-o":
			ours := strings.HasPrefix(value, rules.LinkPrefix)
			named = named || ours
			spared = spared || !ours && !negated && !slices.Contains(t.uplinks, value)
			byOthers = byOthers || !ours && !negated && option == "-i"
		case "-s", "-d":
			prefix, err := netip.ParsePrefix(value)
			pool := err == nil && slices.ContainsFunc(t.pools, prefix.Overlaps)
			named, source = named || pool, source || pool && !negated && option == "-s"
			spared = spared || !pool && !negated
		case "--ctstate", "--state":
			states := strings.Split(value, ",")
			spared = spared || !negated && !slices.Contains(states, "NEW") && !slices.Contains(states, "ESTABLISHED")
		case "-p", "-m":
		case "-j":
			forged := byOthers && source // no replica's packet comes by a link of others
			return !forged && (named || !spared)
		default: // ports, lists, limits ...
			spared = spared || strings.HasPrefix(option, "-") && !negated
		}
	}
	return false
}

var ruleComment = regexp.MustCompile(` --comment ("(\\.|[^"\\])*"|\S+)`)
