package netns

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
)

// sabotageDetach leaves a link behind, where a test asks for that to see that
// it would be noticed.
func sabotageDetach() error {
	if !fault.Sabotaged("leave link") {
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "left" // one with our prefix and no owner would be removed
	left := netlink.NewVeth(attrs)
	left.PeerName = "left-too"
	if err := netlink.LinkAdd(left); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// sabotageCommit touches a chain of others, likewise.
func (p programs) sabotageCommit() error {
	if !fault.Sabotaged("touch foreign rules") {
		return nil
	}
	t, err := p.edit()
	if err != nil {
		return err
	}
	return t.AppendUnique("filter", "INPUT", "-p", "udp", "--dport", "9", "-j", "ACCEPT")
}
