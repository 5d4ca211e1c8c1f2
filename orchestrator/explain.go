package orchestrator

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// Explain says what becomes of connections to a port, an address or a service,
// and why. It asks the kernel and the agent's own memory, never containerd.
func (l *Loop) Explain(ctx context.Context, r spec.ExplainRequest) (spec.Explanation, error) {
	e := spec.Explanation{Asked: r.Asked}
	status, err := l.Status(ctx)
	if err != nil {
		return e, err
	}
	asked, err := parseAsked(r.Asked)
	if err != nil {
		return e, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	fronts, err := l.cfg.Network.Fronts(ctx)
	if err != nil {
		return e, err
	}
	all, err := l.questions(asked, r, fronts)
	if err != nil {
		return e, err
	}
	var packets []spec.Packet
	for _, q := range all {
		packets = append(packets, q.packet)
	}
	traces, err := l.cfg.Network.Trace(ctx, packets)
	if err != nil {
		return e, fmt.Errorf("follow the packet: %w", err)
	}
	a := answers{status: status, reach: l.cfg.Visits.Reach(), desired: l.state.desired(), idle: l.repairsNothing(), now: l.cfg.Clock.Now()}
	for i, q := range all {
		way := spec.ExplainedWay{Trace: traces[i]}
		if q.service != (serviceID{}) {
			way.Service = q.service.String()
		}
		if err := l.sockets(a, &way); err != nil {
			return e, err
		}
		e.Ways = append(e.Ways, way)
	}
	if asked.port != 0 {
		if e.Holder, err = l.holder(ctx, all); err != nil {
			return e, err
		}
	}
	a.explain(&e)
	if only := slices.DeleteFunc(slices.Clone(e.Replicas), func(s spec.ReplicaStatus) bool {
		return !asked.replica(spec.ReplicaKey{ID: s.Replica, Project: s.Project, Service: s.Service}, r.Project)
	}); len(only) > 0 {
		e.Replicas = only
	}
	return e, nil
}

// sockets adds to what isn't seen of a way the programs at the sockets of replicas that
// it leads to.
func (l *Loop) sockets(a answers, way *spec.ExplainedWay) error {
	for _, r := range way.Reach {
		replica, known := a.at(r.To.Addr())
		if !known || replica.Pid == 0 {
			continue
		}
		programs, err := l.cfg.Network.SocketPrograms(replica.Pid)
		if err != nil {
			return err
		}
		for _, p := range programs {
			text := fmt.Sprintf("%s, %s may drop packets: what it does isn't followed", a.called(replica), p)
			if !slices.Contains(way.Unseen, text) {
				way.Unseen = append(way.Unseen, text)
			}
		}
	}
	return nil
}

// holder names the process of the host that listens where the first packet goes.
func (l *Loop) holder(ctx context.Context, all []question) (string, error) {
	if len(all) == 0 {
		return "", nil
	}
	p := all[0].packet
	who, err := l.cfg.Network.Holder(ctx, p.To.Addr(), p.To.Port(), p.Protocol)
	if err != nil {
		return "", fmt.Errorf("find out who listens on port %d/%s: %w", p.To.Port(), p.Protocol, err)
	}
	return who, nil
}

// serviceID names a service of a project.
type serviceID struct{ project, name string }

func (s serviceID) String() string { return s.project + "/" + s.name }

// asked is what somebody wants explained: a port, one at an address, a service or a
// replica.
type asked struct {
	addr    netip.Addr
	port    uint16
	proto   spec.Protocol
	service serviceID // or a replica's; the project may be empty
}

// parseAsked reads "8080", "8080/udp", "tcp://198.51.100.7:8080", "[fd00::1]:53/udp",
// "10.208.16.10", "web", "shop/web", "web-1", "shop-web-1" and a replica's full name.
func parseAsked(text string) (asked, error) {
	a := asked{proto: spec.TCP}
	rest := text
	scheme, after, isURL := strings.Cut(text, "://")
	if isURL {
		rest = strings.TrimSuffix(after, "/")
		a.proto = spec.Protocol(scheme)
	}
	number, proto, has := strings.Cut(rest, "/")
	if has && !isURL && (isPort(number) || strings.Contains(number, ":")) {
		rest, a.proto = number, spec.Protocol(proto)
	}
	ap, noAddr := netip.ParseAddrPort(rest)
	bare, notBare := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]"))
	n, noPort := strconv.ParseUint(rest, 10, 16)
	switch {
	case noAddr == nil && ap.Port() > 0:
		a.addr, a.port = ap.Addr().Unmap(), ap.Port()
	case notBare == nil:
		a.addr = bare.Unmap()
	case noPort == nil && n > 0:
		a.port = uint16(n)
	case !isURL && isPort(rest):
		return a, refused([]error{fmt.Errorf("%q isn't a port: those are the numbers from 1 to 65535", text)})
	case isURL, strings.ContainsAny(rest, ":[]"), rest == "":
		return a, refused([]error{fmt.Errorf("%q can't be explained: ask for a port (8080, 53/udp), an address (tcp://198.51.100.7:8080, or a replica's), a service (web, shop/web) or a replica (web-1)", text)})
	default:
		project, name, both := strings.Cut(rest, "/")
		a.service = serviceID{project, name}
		if !both {
			a.service = serviceID{"", project}
		}
	}
	if a.proto != spec.TCP && a.proto != spec.UDP {
		return a, refused([]error{fmt.Errorf("%q: the protocol is tcp or udp", text)})
	}
	return a, nil
}

// inside is the packet to an address of the service itself, at a likely port if
// none is asked for.
func (a asked) inside(s spec.Service, addr netip.Addr) spec.Packet {
	port := a.port
	if port == 0 {
		port = insidePort(s)
	}
	return spec.Packet{Protocol: a.proto, From: spec.FromHost, To: netip.AddrPortFrom(addr, port)}
}

// replica reports whether that replica is asked for, by one of its names.
func (a asked) replica(r spec.ReplicaKey, project string) bool {
	if a.service.name == r.ID {
		return true
	}
	return spec.ReplicaIsCalled(r.Project, r.Service, r.ID, a.service.name) && (a.service.project == r.Project || a.service.project == "" && (project == "" || project == r.Project))
}

func isPort(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// question is a packet whose way is asked for, and the service that it is for.
type question struct {
	packet  spec.Packet
	service serviceID
}

// mostQuestions bounds the ways that are told of a service with many ports.
const mostQuestions = 12

// questions lists the packets: to each address that the port is published on,
// from outside and from the host; of a service also to its own addresses.
func (l *Loop) questions(a asked, r spec.ExplainRequest, fronts []netip.Addr) ([]question, error) {
	var all []question
	desired := l.state.desired()
	var one []question // to replicas of the name, which a service may have
	known, found := false, false
	for _, p := range desired.Projects {
		for _, s := range p.Release.Project.Services {
			id := serviceID{p.Record.Name, s.Name}
			named := a.service.name == s.Name && (a.service.project == id.project || a.service.project == "" && (r.Project == "" || r.Project == id.project))
			known = known || named
			for _, port := range s.Ports {
				if named || a.port == port.Published && a.proto == port.Protocol && (!a.addr.IsValid() || a.addr == port.HostIP || !port.HostIP.IsValid() || port.HostIP.IsUnspecified()) {
					all = append(all, ofPort(id, port, a.addr, fronts)...)
				}
			}
			for _, lease := range p.Record.Addresses {
				if lease.Service != s.Name {
					continue
				}
				if at := a.addr.IsValid() && (a.addr == lease.Addr || a.addr == lease.Addr6); at {
					all = append(all, question{a.inside(s, a.addr), id})
				} else if named {
					all = append(all, question{spec.Packet{Protocol: spec.TCP, From: spec.FromHost, To: netip.AddrPortFrom(lease.Addr, insidePort(s))}, id})
				}
			}
			for _, record := range l.state.replicaRecords() {
				if record.Project != id.project || record.Service != id.name {
					continue
				}
				for _, addr := range plan.Addresses(record) {
					if addr == a.addr {
						all = append(all, question{a.inside(s, addr), id})
					} else if a.replica(record.ReplicaKey, r.Project) {
						one = append(one, question{a.inside(s, addr), id})
					}
				}
				found = found || a.replica(record.ReplicaKey, r.Project)
			}
		}
	}
	if !known {
		known, all = found, append(all, one...)
	}
	if a.service.name != "" {
		if err := l.oneService(a.service, known, all); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 && a.addr.IsValid() && a.port == 0 {
		return nil, fmt.Errorf("no service and no replica has the address %s; of the host's own, ask for one with a port (tcp://%s): %w", a.addr, netip.AddrPortFrom(a.addr, 8080), spec.ErrNotFound)
	}
	if len(all) == 0 && a.service.name == "" { // of nobody's
		all = ofPort(serviceID{}, spec.Port{Published: a.port, Protocol: a.proto}, a.addr, fronts)
	}
	all = from(r.From, all)
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no address that a client at %s could ask: %w", r.Asked, r.From, spec.ErrNotFound)
	}
	return all[:min(len(all), mostQuestions)], nil
}

// oneService refuses a name that no project has, or more than one.
func (l *Loop) oneService(s serviceID, known bool, all []question) error {
	var of []string
	for _, q := range all {
		if !slices.Contains(of, q.service.String()) {
			of = append(of, q.service.String())
		}
	}
	switch {
	case !known:
		return fmt.Errorf("service or replica %s: %w; `dunnage ps -a` lists what is deployed", strings.TrimPrefix(s.String(), "/"), spec.ErrNotFound)
	case len(of) > 1:
		return refused([]error{fmt.Errorf("%s may be one of %s: put the project before it (PROJECT/%s)", s.name, strings.Join(of, ", "), s.name)})
	case len(all) == 0:
		return fmt.Errorf("%s has no network and publishes no port, so nobody connects to it: %w", s.name, spec.ErrNotFound)
	}
	return nil
}

// ofPort lists the packets to a published port: at the one address asked for, else
// at those where clients find it.
func ofPort(id serviceID, p spec.Port, at netip.Addr, fronts []netip.Addr) []question {
	var all []question
	add := func(from spec.Vantage, a netip.Addr) {
		all = append(all, question{spec.Packet{Protocol: p.Protocol, From: from, To: netip.AddrPortFrom(a, p.Published)}, id})
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	switch ip := p.HostIP; {
	case at.IsValid() && at.IsLoopback():
		add(spec.FromHost, at)
	case at.IsValid():
		add(spec.FromOutside, at)
	case ip.IsValid() && ip.IsLoopback():
		add(spec.FromHost, ip)
	case ip.IsValid() && !ip.IsUnspecified():
		add(spec.FromOutside, ip)
	default:
		for _, front := range fronts {
			if !ip.IsValid() || ip.Is6() == front.Is6() {
				add(spec.FromOutside, front)
			}
		}
		if !ip.IsValid() || ip.Is4() {
			add(spec.FromHost, loopback)
		}
	}
	return all
}

// from makes them the packets of one client. It asks addresses of its own family.
func from(client netip.Addr, all []question) []question {
	if !client.IsValid() {
		return all
	}
	var out []question
	for _, q := range all {
		if q.packet.To.Addr().Is6() != client.Is6() || q.packet.To.Addr().IsLoopback() && !client.IsLoopback() {
			continue
		}
		q.packet.Source, q.packet.From = client, spec.FromOutside
		out = append(out, q)
	}
	return out
}

// insidePort is a port on which the service's replicas are likely asked by others;
// 0 = any.
func insidePort(s spec.Service) uint16 {
	for _, p := range s.Ports {
		if p.Protocol == spec.TCP {
			return p.Target
		}
	}
	for _, p := range s.Container.Probes {
		if p.Port > 0 {
			return p.Port
		}
	}
	return 0
}
