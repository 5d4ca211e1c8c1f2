package netns

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"dunnage/netns/walk"
)

// ipsecWays are the kernel's numbers; those of sockets are beyond.
var ipsecWays = []walk.IPsecWay{netlink.XFRM_DIR_IN: walk.IPsecIn, netlink.XFRM_DIR_OUT: walk.IPsecOut, netlink.XFRM_DIR_FWD: walk.IPsecForward}

// readIPsec lists IPsec's policies of one family in the order in which the kernel asks
// them: by priority, and of one priority the older first.
func readIPsec(v6 bool) (all []walk.IPsecPolicy, err error) {
	kind := netlink.FAMILY_V4
	if v6 {
		kind = netlink.FAMILY_V6
	}
	list, err := retryDump(func() ([]netlink.XfrmPolicy, error) { return netlink.XfrmPolicyList(kind) })
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT): // the kernel knows no IPsec
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list the policies of IPsec: %w", err)
	}
	slices.Reverse(list) // the newest is told first
	slices.SortStableFunc(list, func(a, b netlink.XfrmPolicy) int { return cmp.Compare(a.Priority, b.Priority) })
	for _, p := range list {
		if int(p.Dir) < len(ipsecWays) {
			all = append(all, ipsecPolicy(p))
		}
	}
	return append(all, ipsecDefaults()...), nil
}

func ipsecPolicy(p netlink.XfrmPolicy) walk.IPsecPolicy {
	prefix := func(n *net.IPNet) netip.Prefix {
		a, _ := netip.AddrFromSlice(n.IP)
		bits, _ := n.Mask.Size()
		return netip.PrefixFrom(a.Unmap(), bits)
	}
	r := walk.IPsecPolicy{
		Way: ipsecWays[p.Dir], From: prefix(p.Src), To: prefix(p.Dst),
		Protocol: uint8(p.Proto), FromPort: uint16(p.SrcPort), ToPort: uint16(p.DstPort),
		Block: p.Action == netlink.XFRM_POLICY_BLOCK,
		Seals: slices.ContainsFunc(p.Tmpls, func(t netlink.XfrmPolicyTmpl) bool { return t.Optional == 0 }),
	}
	if p.Ifindex != 0 {
		name := fmt.Sprint(p.Ifindex)
		if link, err := net.InterfaceByIndex(p.Ifindex); err == nil {
			name = link.Name
		}
		r.More += " dev " + name
	}
	if p.Mark != nil {
		r.More += fmt.Sprintf(" mark %#x mask %#x", p.Mark.Value, p.Mark.Mask)
	}
	if p.Ifid != 0 {
		r.More += fmt.Sprintf(" if_id %#x", p.Ifid)
	}
	return r
}

// ipsecDefaults are what the kernel does with packets that no policy takes, where that
// isn't to let them pass. Kernels before 5.15 let all pass.
func ipsecDefaults() (all []walk.IPsecPolicy) {
	const getDefault, block = 0x28, 1 // XFRM_MSG_GETDEFAULT, XFRM_USERPOLICY_BLOCK
	req := nl.NewNetlinkRequest(getDefault, 0)
	req.AddRawData(make([]byte, 4)) // struct xfrm_userpolicy_default: in, fwd, out
	messages, err := req.Execute(unix.NETLINK_XFRM, getDefault)
	if err != nil || len(messages) == 0 || len(messages[0]) < 3 {
		return nil
	}
	for i, way := range []walk.IPsecWay{walk.IPsecIn, walk.IPsecForward, walk.IPsecOut} {
		if messages[0][i] == block {
			all = append(all, walk.IPsecPolicy{Way: way, Block: true, Default: true})
		}
	}
	return all
}
