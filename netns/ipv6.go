package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"time"

	"dunnage/spec"
)

// The host's owner may switch IPv6 off while the agent runs. Then replicas are
// served by IPv4 alone: what belongs to IPv6 outside of netfilter is neither
// missed nor made nor removed, until it can be made again.

// Times between an unexpected failure of IPv6 and the next try. The pause
// doubles with each failure in a row.
const (
	retryIPv6First = time.Second
	retryIPv6Last  = time.Minute
)

// ipv6Failure is the last that the kernel refused of IPv6 alone. It is safe for
// concurrent use.
type ipv6Failure struct {
	mu    sync.Mutex
	err   error
	pause time.Duration
	until time.Time // IPv6 is left alone until then
}

func (f *ipv6Failure) note(err error, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case now.Before(f.until): // another one of the same try
		return
	case f.err == nil || now.Sub(f.until) > f.pause+retryIPv6Last:
		f.pause = retryIPv6First
	default:
		f.pause = min(2*f.pause, retryIPv6Last)
	}
	f.err, f.until = err, now.Add(f.pause)
}

// last is what holds IPv6 up now, nil = nothing does.
func (f *ipv6Failure) last(now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Before(f.until) {
		return f.err
	}
	return nil
}

// disableIPv6 is the setting of a link without which it has no IPv6. That of
// all links sets each one's, also of those that are made later.
func disableIPv6(link string) sysctl {
	return sysctl{"net/ipv6/conf/" + link + "/disable_ipv6", "0"}
}

// lacksIPv6 says why IPv6 can't be used on the host now, and what to do; empty =
// it can, or isn't wanted. The loopback has the host's addresses in the pool.
func (n *Network) lacksIPv6() string {
	if !n.cfg.Pool6.IsValid() {
		return ""
	}
	const meanwhile = "replicas are served by IPv4 alone"
	off := disableIPv6("lo")
	switch now, err := n.settings.read(off); {
	case errors.Is(err, fs.ErrNotExist):
		return "the kernel has no IPv6: " + meanwhile + "; start the agent with --pool6 none if that is meant"
	case err == nil && now != off.value:
		link := "lo"
		if all, err := disableIPv6("all").read(); err == nil && all != off.value {
			link = "all"
		}
		return fmt.Sprintf("IPv6 is switched off on the host, net.ipv6.conf.%s.disable_ipv6 is %s: %s; `sysctl -w net.ipv6.conf.%s.disable_ipv6=0` brings it back, and --pool6 none leaves it out for good", link, now, meanwhile, link)
	}
	if err := n.ipv6.last(time.Now()); err != nil {
		return fmt.Sprintf("IPv6 can't be set up: %v: %s, and the agent tries again within %s; --pool6 none leaves it out for good", err, meanwhile, retryIPv6Last)
	}
	return ""
}

// usable lists the pools whose family the host has now, IPv4 first.
func (n *Network) usable() []netip.Prefix {
	if n.lacksIPv6() != "" {
		return []netip.Prefix{n.cfg.Pool}
	}
	return n.pools()
}

// ofFamilies leaves out addresses of a family that no pool is of.
func ofFamilies(pools []netip.Prefix, all []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool {
		return !slices.ContainsFunc(pools, func(p netip.Prefix) bool { return p.Addr().Is6() == a.Is6() })
	})
}

// tolerate turns a failure of IPv6 alone into one that Problems names, so that
// IPv4 goes on.
func (n *Network) tolerate(of netip.Addr, err error) error {
	if err == nil || !of.Is6() {
		return err
	}
	n.ipv6.note(err, time.Now())
	return nil
}

func withoutIPv6(all []spec.EndpointAddress) []spec.EndpointAddress {
	all = slices.Clone(all)
	for i := range all {
		all[i].Addr6, all[i].Subnet6 = netip.Addr{}, netip.Prefix{}
	}
	return all
}

// hasIPv6 reports whether the replica has addresses of that family.
func hasIPv6(e spec.Endpoint) bool {
	return slices.ContainsFunc(e.Addresses, func(a spec.EndpointAddress) bool { return a.Addr6.IsValid() })
}
