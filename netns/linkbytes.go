package netns

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// LinkBytes reads from the kernel what went through each replica's own link, in
// one dump of all links. What the host's end has sent, the replica has received.
func (n *Network) LinkBytes() (map[string]spec.LinkBytes, error) {
	links, err := retryDump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	out := map[string]spec.LinkBytes{}
	for _, l := range links {
		a := l.Attrs()
		if s := a.Statistics; s != nil && strings.HasPrefix(a.Name, rules.LinkPrefix) && a.Alias != "" && a.Name == hostLink(a.Alias) {
			out[a.Alias] = spec.LinkBytes{Received: int64(s.TxBytes), Sent: int64(s.RxBytes)}
		}
	}
	return out, nil
}
