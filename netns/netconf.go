package netns

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes of the messages about settings of links (linux/netconf.h).
const (
	netconfIndex      = 1
	netconfForwarding = 2
	netconfAll        = -1 // as index
	sizeofNetconf     = 4  // struct netconfmsg, padded
)

// netconfRequest asks for one family's settings.
type netconfRequest struct{}

func (netconfRequest) Len() int          { return sizeofNetconf }
func (netconfRequest) Serialize() []byte { return []byte{unix.AF_INET, 0, 0, 0} }

// notForwarding lists the links, by index, whose IPv4 packets the host doesn't
// pass on: their setting "forwarding" is 0. One dump tells of all, and the
// kernel sends a message for each change. While no link forwards, since the
// setting of all was switched off, none is listed: that switches each on again.
// IPv6 has no such setting of a link.
func notForwarding() (map[int]bool, error) {
	messages, err := retryDump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETNETCONF, unix.NLM_F_DUMP)
		req.AddData(netconfRequest{})
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNETCONF)
	})
	if err != nil {
		return nil, fmt.Errorf("list the links' settings: %w", err)
	}
	off := map[int]bool{}
	for _, m := range messages {
		if len(m) < sizeofNetconf {
			continue
		}
		index, forwards := 0, true
		attributes(m[sizeofNetconf:], func(kind uint16, value []byte) {
			switch {
			case len(value) < 4:
			case kind == netconfIndex:
				index = int(int32(binary.NativeEndian.Uint32(value)))
			case kind == netconfForwarding:
				forwards = binary.NativeEndian.Uint32(value) != 0
			}
		})
		switch {
		case !forwards && index == netconfAll:
			return nil, nil
		case !forwards && index > 0: // or else it is about links that are made later
			off[index] = true
		}
	}
	return off, nil
}
