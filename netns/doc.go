// Package netns gives replicas their place in the network and owns dunnage's
// netfilter rules: namespaces, links, routes, host files, rules, conntrack.
//
// A replica has one network namespace, bind-mounted under the run directory,
// and one veth pair. There is no bridge: the host routes a /32 (and a /128) to
// each replica, and the replica sends everything to a link-local gateway whose
// neighbour entry is permanent. So every packet passes the host's FORWARD, and
// the rules of package rules see all of it.
//
// Everything acts in the network namespace of the calling process. Nothing is
// remembered between calls that the kernel or the run directory could tell:
// every method looks, then does what is missing, so a crash between any two
// steps is repaired by the next call.
//
// What the package sets on the host beside its own links: net.ipv4.ip_forward
// and, with an IPv6 pool, net.ipv6.conf.all.forwarding. Because a forwarding
// host ignores router advertisements, interfaces that accepted them (accept_ra
// 1) are set to accept them all the same (2). Remove puts the former values
// back.
package netns
