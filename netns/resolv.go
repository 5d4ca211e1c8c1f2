package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

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
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("read the host's resolvers: %w", err)
	}
	var keep strings.Builder
	for line := range strings.Lines(string(b)) {
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
