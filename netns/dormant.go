package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// nftTable is a table of nf_tables.
type nftTable struct {
	family uint8
	name   string
	flags  uint32
}

// flagDormant is NFT_TABLE_F_DORMANT of linux/netfilter/nf_tables.h: the kernel
// takes the table's chains off their hooks. No tool of iptables shows it, or changes it.
const flagDormant = 1

// iptablesNames are the tables that iptables' nf_tables backend shows.
var iptablesNames = []string{"raw", "mangle", "nat", "filter", "security"}

// shown reports whether iptables-save of either family shows the table.
func (t nftTable) shown() bool {
	return (t.family == unix.NFPROTO_IPV4 || t.family == unix.NFPROTO_IPV6) && slices.Contains(iptablesNames, t.name)
}

// tables lists the tables of nf_tables.
func (s *netfilter) tables() ([]nftTable, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	messages, err := retryDump(func() ([][]byte, error) { return s.execute(req) })
	if err != nil {
		return nil, fmt.Errorf("list the tables of nf_tables: %w", err)
	}
	var all []nftTable
	for _, m := range messages {
		if len(m) < nl.SizeofNfgenmsg {
			continue
		}
		t := nftTable{family: m[0]}
		attributes(m[nl.SizeofNfgenmsg:], func(kind uint16, value []byte) {
			switch {
			case kind == unix.NFTA_TABLE_NAME:
				t.name = strings.TrimRight(string(value), "\x00")
			case kind == unix.NFTA_TABLE_FLAGS && len(value) == 4:
				t.flags = binary.BigEndian.Uint32(value)
			}
		})
		all = append(all, t)
	}
	return all, nil
}

func (p programs) family() uint8 {
	if p.proto == iptables.ProtocolIPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// dormant names the family's tables that are switched off.
func (p programs) dormant() ([]string, error) {
	if p.legacy {
		return nil, nil // has no such switch
	}
	all, err := p.generations.tables()
	if err != nil {
		return nil, err
	}
	var off []string
	for _, t := range all {
		if t.family == p.family() && t.shown() && t.flags&flagDormant != 0 {
			off = append(off, t.name)
		}
	}
	return off, nil
}

// wake switches a table on again, with the rules of others in it: there is one
// switch for all, and who writes rules with iptables doesn't see that they are off.
func (p programs) wake(table string) error {
	all, err := p.generations.tables()
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.family == p.family() && t.name == table && t.flags&flagDormant != 0 {
			if err := t.setFlags(t.flags &^ flagDormant); err != nil {
				return fmt.Errorf("switch on the dormant table %s: %w; `nft 'add table %s %s'` does the same", table, err, nftFamily(t.family), table)
			}
		}
	}
	return nil
}

func nftFamily(family uint8) string {
	if family == unix.NFPROTO_IPV6 {
		return "ip6"
	}
	return "ip"
}

// setFlags is one commit to nf_tables, of which the table's flags are all.
func (t nftTable) setFlags(flags uint32) (err error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(socket)) }()
	limit := unix.NsecToTimeval(netfilterTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return fmt.Errorf("limit netlink's receives: %w", err)
	}
	message := func(kind int, flags int, data ...nl.NetlinkRequestData) []byte {
		req := nl.NewNetlinkRequest(kind, flags)
		for _, d := range data {
			req.AddData(d)
		}
		return req.Serialize()
	}
	batch := &nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0, ResId: nl.Swap16(unix.NFNL_SUBSYS_NFTABLES)}
	sent := slices.Concat(
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, batch),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, unix.NLM_F_ACK,
			&nl.Nfgenmsg{NfgenFamily: t.family, Version: nl.NFNETLINK_V0},
			nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(t.name)),
			nl.NewRtAttr(unix.NFTA_TABLE_FLAGS, binary.BigEndian.AppendUint32(nil, flags))),
		message(unix.NFNL_MSG_BATCH_END, 0, batch))
	if err := unix.Sendto(socket, sent, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to nf_tables: %w", err)
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(socket, buf, 0)
	if err != nil {
		return fmt.Errorf("wait for nf_tables: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return errors.New("nf_tables gave another answer than to the change")
	}
	if code := int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
