package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Under load the table has tens of thousands of entries, most of them TCP
// connections that are over. netlink's own listing hands out all of them and
// decodes every field by reflection; a swap would spend its time on the CPU
// that the traffic needs. So the kernel is asked for one protocol where that
// is enough (since Linux 5.8; older ones ignore the filter), and only the
// fields of a flow are decoded.

// Attributes of the filter (linux/netfilter/nfnetlink_conntrack.h), and the
// kernel's flag for "compare the protocol" (nf_conntrack_netlink.c).
const (
	ctaFilter          = 25
	ctaFilterOrigFlags = 1
	filterProtoNum     = 1 << 3
)

// entry is a flow and the message that describes it, which is what the kernel
// wants back to delete it.
type entry struct {
	flow
	message []byte
}

// dumpFlows lists the entries of a family; proto 0 = every protocol, and only
// then may the family be AF_UNSPEC = both.
func (s *netfilter) dumpFlows(family, proto uint8) ([]entry, error) {
	req := conntrackRequest(family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	if proto != 0 {
		orig := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, nil)
		orig.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil).AddRtAttr(nl.CTA_PROTO_NUM, []byte{proto})
		filter := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
		filter.AddRtAttr(ctaFilterOrigFlags, nl.Uint32Attr(filterProtoNum))
		req.AddData(orig)
		req.AddData(filter)
	}
	messages, err := retryDump(func() ([][]byte, error) { return s.execute(req) })
	if err != nil {
		return nil, fmt.Errorf("list conntrack entries: %w", err)
	}
	all := make([]entry, 0, len(messages))
	for _, m := range messages {
		if len(m) > nl.SizeofNfgenmsg {
			all = append(all, entry{parseFlow(m[nl.SizeofNfgenmsg:]), m})
		}
	}
	return all, nil
}

// deleteFlow deletes one entry; one that is gone already is success.
func (s *netfilter) deleteFlow(e entry) error {
	family := e.message[0] // of nfgenmsg
	req := conntrackRequest(family, nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.AddRawData(e.message[nl.SizeofNfgenmsg:])
	if _, err := s.execute(req); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete conntrack entry %s to %s: %w", e.src, e.dst, err)
	}
	return nil
}

func conntrackRequest(family uint8, operation, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(int(netlink.ConntrackTable)<<8|operation, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return req
}

// attributes calls f for each netlink attribute in b; damaged ones end it.
func attributes(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if size < 4 || size > len(b) {
			return
		}
		f(kind, b[4:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}

func parseFlow(b []byte) flow {
	var f flow
	attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			f.src, f.dst, f.proto, f.dport = parseTuple(value)
		case nl.CTA_TUPLE_REPLY:
			f.answers, f.answersTo, _, _ = parseTuple(value)
		case nl.CTA_PROTOINFO:
			f.tcpState, f.tcpHasStates = parseTCPState(value)
		}
	})
	return f
}

func parseTuple(b []byte) (src, dst netip.Addr, proto uint8, dport uint16) {
	attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case nl.CTA_TUPLE_IP:
			attributes(value, func(kind uint16, value []byte) {
				switch a, _ := netip.AddrFromSlice(value); kind {
				case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
					src = a
				case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
					dst = a
				}
			})
		case nl.CTA_TUPLE_PROTO:
			attributes(value, func(kind uint16, value []byte) {
				switch {
				case kind == nl.CTA_PROTO_NUM && len(value) == 1:
					proto = value[0]
				case kind == nl.CTA_PROTO_DST_PORT && len(value) == 2:
					dport = binary.BigEndian.Uint16(value)
				}
			})
		}
	})
	return src, dst, proto, dport
}

func parseTCPState(b []byte) (state uint8, ok bool) {
	attributes(b, func(kind uint16, value []byte) {
		if kind != nl.CTA_PROTOINFO_TCP {
			return
		}
		attributes(value, func(kind uint16, value []byte) {
			if kind == nl.CTA_PROTOINFO_TCP_STATE && len(value) == 1 {
				state, ok = value[0], true
			}
		})
	})
	return state, ok
}
