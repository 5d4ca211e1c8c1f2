package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"dunnage/netns/walk"
)

// linkPrograms finds what stands at the host's links besides rules of netfilter and
// may drop what passes there: XDP, programs of tcx, filters of tc. Each link is looked
// at once.
type linkPrograms struct {
	links  []netlink.Link
	qdiscs map[int]string // by a link's index: "clsact", which has filters both ways, or "ingress"
	known  map[linkWay][]walk.Program
}

// linkWay is a link and the way that packets take through it.
type linkWay struct {
	name string
	out  bool
}

func readLinkPrograms() (*linkPrograms, error) {
	l := &linkPrograms{qdiscs: map[int]string{}, known: map[linkWay][]walk.Program{}}
	var err error
	if l.links, err = retryDump(netlink.LinkList); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	messages, err := tcDump(unix.RTM_GETQDISC, unix.RTM_NEWQDISC, nl.TcMsg{})
	if err != nil {
		return nil, fmt.Errorf("list the queueing disciplines of links: %w", err)
	}
	for _, m := range messages {
		if kind := m.kind(); kind == "clsact" || kind == "ingress" {
			l.qdiscs[int(m.Ifindex)] = kind
		}
	}
	return l, nil
}

// at lists what packets meet as they come in by a link, or go out. They pass a port of
// a bridge or bond as well, and the link below a VLAN. "" = it isn't known by which
// link they come: by any that isn't a replica's.
func (l *linkPrograms) at(name string, out bool) []walk.Program {
	key := linkWay{name, out}
	found, known := l.known[key]
	if known {
		return found
	}
	l.known[key] = nil // links may stand in a ring
	for _, link := range l.links {
		switch a := link.Attrs(); {
		case name == "" && a.Flags&unix.IFF_LOOPBACK == 0 && !isOurs(a):
			found = append(found, l.of(a, out)...)
		case name != "" && a.Name == name:
			found = append(found, l.of(a, out)...)
			for _, lower := range l.links {
				if below(lower.Attrs(), link) {
					found = append(found, l.at(lower.Attrs().Name, out)...)
				}
			}
		}
	}
	l.known[key] = found
	return found
}

// below reports whether what passes a link may pass the lower one too.
func below(lower *netlink.LinkAttrs, link netlink.Link) bool {
	vlan, is := link.(*netlink.Vlan)
	return is && vlan.ParentIndex == lower.Index || lower.MasterIndex == link.Attrs().Index
}

func (l *linkPrograms) of(a *netlink.LinkAttrs, out bool) (all []walk.Program) {
	way, attached, parent := "ingress", uint32(attachTCXIngress), uint32(netlink.HANDLE_MIN_INGRESS)
	filtered := l.qdiscs[a.Index] != ""
	if out {
		way, attached, parent = "egress", attachTCXEgress, netlink.HANDLE_MIN_EGRESS
		filtered = l.qdiscs[a.Index] == "clsact"
	}
	add := func(kind, name string) {
		all = append(all, walk.Program{Where: kind + " at " + a.Name, Name: name})
	}
	unlisted := func(kind string, err error) {
		if !errors.Is(err, unix.ENODEV) { // the link has gone meanwhile
			add(kind, fmt.Sprintf("something that can't be listed (%v)", err))
		}
	}
	if x := a.Xdp; x != nil && x.Attached && !out {
		name := "several programs" // one in each mode
		if x.ProgId != 0 {
			name = programName(x.ProgId)
		}
		add("XDP", name)
	}
	ids, err := attachedPrograms(uint32(a.Index), attached, 0)
	if err != nil {
		unlisted("tcx "+way, err)
	}
	for _, id := range ids {
		add("tcx "+way, programName(id))
	}
	if filtered {
		filters, err := tcFilters(a.Index, parent)
		if err != nil {
			unlisted("tc "+way, err)
		}
		for _, f := range filters {
			add("tc "+way, f)
		}
	}
	return all
}

// tcFilters names the filters at one side of a link, each priority and program once.
func tcFilters(link int, side uint32) (all []string, err error) {
	messages, err := tcDump(unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, nl.TcMsg{Ifindex: int32(link), Parent: side})
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		id, filters := m.program()
		if !filters {
			continue
		}
		name := fmt.Sprintf("filter %s, pref %d", m.kind(), m.Info>>16)
		if id != 0 {
			name += ": " + programName(id)
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all, nil
}

// tcMessage describes a qdisc or a filter.
type tcMessage struct {
	nl.TcMsg
	attributes []byte
}

func tcDump(get int, answer uint16, what nl.TcMsg) ([]tcMessage, error) {
	messages, err := retryDump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(get, unix.NLM_F_DUMP)
		req.AddData(&what)
		return req.Execute(unix.NETLINK_ROUTE, answer)
	})
	if err != nil {
		return nil, err
	}
	var all []tcMessage
	for _, m := range messages {
		if len(m) >= nl.SizeofTcMsg {
			all = append(all, tcMessage{*nl.DeserializeTcMsg(m), m[nl.SizeofTcMsg:]})
		}
	}
	return all, nil
}

func (m tcMessage) kind() (kind string) {
	attributes(m.attributes, func(of uint16, value []byte) {
		if of == nl.TCA_KIND {
			kind = strings.TrimRight(string(value), "\x00")
		}
	})
	return kind
}

// program is the id of a filter's BPF program, 0 = it has none. Of each priority the
// kernel lists itself too, which filters nothing.
func (m tcMessage) program() (id uint32, filters bool) {
	const programID = 11 // TCA_BPF_ID
	bpf := m.kind() == "bpf"
	attributes(m.attributes, func(of uint16, value []byte) {
		if of != nl.TCA_OPTIONS {
			return
		}
		filters = true
		attributes(value, func(of uint16, value []byte) {
			if bpf && of == programID && len(value) == 4 {
				id = binary.NativeEndian.Uint32(value)
			}
		})
	})
	return id, filters
}
