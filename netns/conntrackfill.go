package netns

import (
	"fmt"
	"strconv"

	"dunnage/spec"
)

// ConntrackFill says how full the table of connections is that the caller's
// network namespace has.
func (n *Network) ConntrackFill() (f spec.ConntrackFill, err error) {
	for name, to := range map[string]*int64{"count": &f.Entries, "max": &f.Limit} {
		v, err := sysctl{name: "net/netfilter/nf_conntrack_" + name}.read()
		if err != nil {
			return f, fmt.Errorf("ask how full the table of connections is: %w", err)
		}
		if *to, err = strconv.ParseInt(v, 10, 64); err != nil {
			return f, fmt.Errorf("ask how full the table of connections is: %w", err)
		}
	}
	return f, nil
}
