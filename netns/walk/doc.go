// Package walk follows the first packet of a connection through a host's packet
// rules, as the kernel would, and says which rules it meets, where it may arrive
// and where it dies. It is pure: the rules come as the text that iptables-save -c
// and nft print, and what the kernel knows beside them (routes, its own
// addresses) as functions.
//
// What can't be known of a packet (an address of the world, a limit that others
// may have used up, a set that another program keeps) makes a match a Maybe: the
// packet then goes both ways, and both are told. What walk says without a Maybe
// is what the kernel does; the property test in package netns holds it to that.
package walk
