package manifest

import (
	"net/netip"
	"strconv"
	"strings"

	"dunnage/spec"
)

// maxPorts bounds the published ports of one file: every one is a rule, and a
// swap of 10,000 rules takes a quarter of a second.
const maxPorts = 4096

// portRange is "80" or "8000-8010", both ends included.
type portRange struct{ first, last uint16 }

func (r portRange) size() int { return int(r.last) - int(r.first) + 1 }

// The parts of a publication, as messages call them.
const (
	hostPort      = "the host port"
	containerPort = "the container port"
)

func parsePortRange(what, v string) (portRange, error) {
	a, b, ranged := strings.Cut(v, "-")
	first, err := parsePort(a)
	last := first
	if ranged && err == nil {
		last, err = parsePort(b)
	}
	switch {
	case err != nil && what == hostPort:
		return portRange{}, refuse("Write one such as 8080 or 8000-8010, or leave it out to have one picked", "%s %q isn't a number from 1 to 65535, nor a range of them", what, clip(v))
	case err != nil:
		return portRange{}, refuse("Write one such as 80 or 8000-8010", "%s %q isn't a number from 1 to 65535, nor a range of them", what, clip(v))
	case last < first:
		return portRange{}, refuse("Write the lower port first", "the port range %q ends before it starts", clip(v))
	}
	return portRange{first, last}, nil
}

func parsePort(v string) (uint16, error) {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n == 0 {
		return 0, refuse("Use a whole number from 1 to 65535", "%q isn't a port", clip(v))
	}
	return uint16(n), nil
}

func checkPortNumber(v string) error { _, err := parsePort(v); return err }

// checkPublished accepts a port, a range, and nothing or 0, which mean "pick one".
func checkPublished(v string) error {
	if v == "" || v == "0" {
		return nil
	}
	_, err := parsePortRange(hostPort, v)
	return err
}

func checkProtocol(v string) error { _, err := parseProtocol(v); return err }

func parseProtocol(v string) (spec.Protocol, error) {
	switch p := spec.Protocol(strings.ToLower(v)); p {
	case "", spec.TCP:
		return spec.TCP, nil
	case spec.UDP:
		return p, nil
	case "sctp":
		return "", refuse("Use tcp or udp", "sctp can't be published: most hosts' kernels have no SCTP")
	}
	return "", refuse("Use tcp or udp", "%q isn't a protocol that can be published", clip(v))
}

func checkPortItem(v string) error { _, err := parsePortItem(v); return err }

// parsePortItem reads the short form. What it refuses never reaches compose-go.
func parsePortItem(v string) ([]spec.Port, error) {
	rest, proto, _ := strings.Cut(v, "/")
	protocol, err := parseProtocol(proto)
	if err != nil {
		return nil, err
	}
	ip, host, container := splitPortItem(rest)
	var addr netip.Addr
	if ip != "" {
		if addr, err = parseIP(ip); err != nil {
			return nil, err
		}
	}
	target, err := parsePortRange(containerPort, container)
	if err != nil {
		return nil, err
	}
	if err := checkPublished(host); err != nil {
		return nil, err
	}
	return pairPorts(v, spec.Port{HostIP: addr, Protocol: protocol}, host, target)
}

// splitPortItem cuts "IP:HOST:CONTAINER" at its last two colons; an IPv6
// address may stand in brackets or not.
func splitPortItem(v string) (ip, host, container string) {
	i := strings.LastIndex(v, ":")
	if i < 0 {
		return "", "", v
	}
	container, v = v[i+1:], v[:i]
	if i = strings.LastIndex(v, ":"); i < 0 {
		return "", v, container
	}
	return v[:i], v[i+1:], container
}

// pairPorts gives each target its host port, or a range to pick from.
func pairPorts(text string, base spec.Port, host string, target portRange) ([]spec.Port, error) {
	if target.size() > maxPorts {
		return nil, refuse("Publish fewer", "%q publishes %d ports, but one file may publish at most %d", clip(text), target.size(), maxPorts)
	}
	var published portRange
	if host == "0" && target.size() > 1 {
		return nil, refuse("Leave the host's part out to have ports picked", "%q publishes one host port for %d container ports", clip(text), target.size())
	}
	if host != "" && host != "0" {
		published, _ = parsePortRange(hostPort, host) // checked by the caller
		if published.size() != target.size() && target.size() != 1 {
			return nil, refuse("Make both ranges equally long", "%q publishes %d host ports for %d container ports", clip(text), published.size(), target.size())
		}
	}
	ports := make([]spec.Port, 0, target.size())
	for i := range target.size() {
		p := base
		p.Target = target.first + uint16(i)
		switch {
		case published.first == 0:
		case target.size() == 1 && published.size() > 1:
			p.Published, p.Last = published.first, published.last
		default:
			p.Published = published.first + uint16(i)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func checkExpose(v string) error { _, err := parseExpose(v); return err }

func parseExpose(v string) ([]spec.PortProto, error) {
	rest, proto, _ := strings.Cut(v, "/")
	protocol, err := parseProtocol(proto)
	if err != nil {
		return nil, err
	}
	r, err := parsePortRange("the port", rest)
	if err != nil {
		return nil, err
	}
	if r.size() > maxPorts {
		return nil, refuse("Remove it: members of a network reach every port of each other", "%q exposes %d ports", clip(v), r.size())
	}
	ports := make([]spec.PortProto, 0, r.size())
	for i := range r.size() {
		ports = append(ports, spec.PortProto{Port: r.first + uint16(i), Protocol: protocol})
	}
	return ports, nil
}

// overlaps reports whether two publications would take the same host port. A
// port that the agent picks never does.
func overlaps(a, b spec.Port) bool {
	if a.Protocol != b.Protocol || a.Published == 0 || a.Published != b.Published || a.Last != 0 || b.Last != 0 {
		return false
	}
	return covers(a.HostIP, b.HostIP) || covers(b.HostIP, a.HostIP)
}

// covers reports whether a listener on a also takes b.
func covers(a, b netip.Addr) bool {
	switch {
	case !a.IsValid():
		return true
	case !b.IsValid():
		return false
	case a.IsUnspecified():
		return a.Is4() == b.Is4()
	}
	return a == b
}
