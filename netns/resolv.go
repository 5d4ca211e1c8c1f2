package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"dunnage/spec"
)

// resolvText is the replica's /etc/resolv.conf. In the host's network it is the
// host's own, since that one's resolvers can be reached there.
func (n *Network) resolvText(e spec.Endpoint) (string, error) {
	var text string
	var err error
	if e.Network == spec.NetworkHost {
		text, err = readIfThere(n.cfg.ResolvConf)
	} else {
		text, err = n.resolvConf(hasIPv6(e))
	}
	return replaceResolv(text, e.DNS), err
}

// replaceResolv puts what the manifest says in the place of the host's.
func replaceResolv(text string, dns spec.DNS) string {
	gone := map[string]bool{
		"nameserver": len(dns.Servers) > 0, "options": len(dns.Options) > 0,
		"search": len(dns.Search) > 0, "domain": len(dns.Search) > 0,
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 0 || !gone[fields[0]] {
			b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	for _, a := range dns.Servers {
		fmt.Fprintln(&b, "nameserver", a)
	}
	if len(dns.Search) > 0 && !slices.Equal(dns.Search, []string{"."}) {
		fmt.Fprintln(&b, "search", strings.Join(dns.Search, " "))
	}
	if len(dns.Options) > 0 {
		fmt.Fprintln(&b, "options", strings.Join(dns.Options, " "))
	}
	return b.String()
}

// resolvConf is the container's /etc/resolv.conf, made from the host's. A
// resolver on the host's loopback can't be reached from another namespace:
// such lines are left out. If nothing is left, systemd-resolved's list of the
// real servers is used, where it exists.
func (n *Network) resolvConf(v6 bool) (string, error) {
	text, servers, err := readResolv(n.cfg.ResolvConf, v6)
	if err != nil || servers > 0 {
		return text, err
	}
	if stub, servers, err := readResolv(n.cfg.StubResolvConf, v6); err != nil || servers > 0 {
		return stub, err
	}
	return text, nil
}

// readResolv returns the lines of path that make sense in a container, and how
// many of them name a server. A missing file has no lines.
func readResolv(path string, v6 bool) (text string, servers int, err error) {
	all, err := readIfThere(path)
	if err != nil {
		return "", 0, err
	}
	var keep strings.Builder
	for line := range strings.Lines(all) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.ContainsAny(fields[0][:1], "#;") {
			continue
		}
		if fields[0] == "nameserver" {
			if !usableServer(fields[1], v6) {
				continue
			}
			servers++
		}
		keep.WriteString(strings.Join(fields, " ") + "\n")
	}
	return keep.String(), servers, nil
}

// usableServer reports whether a container can reach the server: not on the
// host's loopback, not link-local (its zone is an interface of the host), and
// of a family that the container has.
func usableServer(server string, v6 bool) bool {
	a, err := netip.ParseAddr(server)
	if err != nil {
		return false
	}
	a = a.Unmap()
	return !a.IsLoopback() && !a.IsLinkLocalUnicast() && (a.Is4() || v6)
}
