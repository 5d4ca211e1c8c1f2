package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// Attached lists the replicas that have a namespace, link or files, and those
// of them that have all that Attach makes on the host; both sorted. A link
// stands for what is in the namespace too: it goes with either end.
func (n *Network) Attached(context.Context) (some, whole []string, err error) {
	p, err := n.present()
	if err != nil {
		return nil, nil, err
	}
	if err := n.sweepDisowned(p.disowned); err != nil {
		return nil, nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(p.some)) {
		some = append(some, id)
		ok, err := n.whole(p, id)
		if err != nil {
			return nil, nil, fmt.Errorf("look at replica %s: %w", id, err)
		}
		if ok {
			whole = append(whole, id)
		}
	}
	return some, whole, nil
}

// present is what the host has of all replicas.
type present struct {
	some map[string]bool // replicas of which there is anything
	kernelState
}

// hop is an address behind a link.
type hop struct {
	link int
	addr netip.Addr
}

func hopOf(link int, ip net.IP) hop {
	a, _ := netip.AddrFromSlice(ip)
	return hop{link, a.Unmap()}
}

func (n *Network) present() (present, error) {
	p := present{some: map[string]bool{}}
	for _, dir := range []string{"netns", "replicas"} {
		entries, err := os.ReadDir(filepath.Join(n.cfg.RunDir, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return p, fmt.Errorf("list attached replicas: %w", err)
		}
		for _, e := range entries {
			p.some[e.Name()] = true
		}
	}
	var err error
	if p.kernelState, err = n.kernelState(); err != nil {
		return p, err
	}
	for replica := range p.links {
		p.some[replica] = true
	}
	return p, nil
}

// whole reports whether nothing of the replica is missing on the host: the
// kernel drops routes and neighbours of a link that somebody sets down, and
// doesn't bring them back with it.
func (n *Network) whole(p present, replica string) (bool, error) {
	if mounted, err := isNamespace(n.Namespace(replica)); err != nil || !mounted {
		return false, err
	}
	addrs, found, err := n.recorded(replica)
	if err != nil || !found {
		return false, err
	}
	if len(addrs) == 0 { // in the host's network, or none: there is no link
		return true, nil
	}
	link := p.links[replica]
	if link == nil || link.Flags&net.FlagUp == 0 {
		return false, nil
	}
	if now, err := n.settings.read(routeLocalnet(link.Name)); err != nil || now != "1" {
		return false, nil // no answers to 127.0.0.1: a sysctl.d file with a pattern does that
	}
	mac := hardwareAddr(replica, "replica")
	for _, a := range addrs {
		h := hop{link.Index, a}
		if !p.routes[h] || !bytes.Equal(p.neighbours[h], mac) {
			return false, nil
		}
	}
	return true, nil
}
