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
	"time"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// Attached lists the replicas that have a namespace, link or files, and those
// of them that have all that Attach makes on the host; both sorted. A link
// stands for what is in the namespace too: it goes with either end.
func (n *Network) Attached(context.Context) (some, whole []string, err error) {
	p, err := n.present()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(p.some)) {
		some = append(some, id)
		damage, err := n.replicaDamage(p, id)
		if err != nil {
			return nil, nil, fmt.Errorf("look at replica %s: %w", id, err)
		}
		if len(damage) == 0 {
			whole = append(whole, id)
		}
	}
	return some, whole, nil
}

// present is what the host has of all replicas.
type present struct {
	some  map[string]bool // replicas of which there is anything
	pools []netip.Prefix  // whose families the host has
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
	p := present{some: map[string]bool{}, pools: n.usable()}
	n.innards.hear()
	ids, _, err := n.runFiles()
	if err != nil {
		return p, err
	}
	for _, id := range ids {
		p.some[id] = true
	}
	if p.kernelState, err = n.kernelState(); err != nil {
		return p, err
	}
	for replica := range p.links {
		p.some[replica] = true
	}
	return p, nil
}

// runFiles lists the replicas that have a directory for their host files, or a
// namespace without one, and the paths beside them that can't be an agent's:
// Attach makes the directory first and Detach removes it last, so what is under
// netns without it and isn't a namespace was put there by somebody else.
func (n *Network) runFiles() (ids, strange []string, err error) {
	dirs, err := n.runEntries("replicas")
	if err != nil {
		return nil, nil, err
	}
	for _, e := range dirs {
		if e.IsDir() {
			ids = append(ids, e.Name())
		} else {
			strange = append(strange, n.dir(e.Name()))
		}
	}
	mounts, err := n.runEntries("netns")
	if err != nil {
		return nil, nil, err
	}
	withFiles := len(ids)
	for _, e := range mounts {
		if _, found := slices.BinarySearch(ids[:withFiles], e.Name()); found {
			continue
		}
		path := n.Namespace(e.Name())
		mounted, err := isNamespace(path)
		switch {
		case err != nil:
			return nil, nil, err
		case mounted:
			ids = append(ids, e.Name())
		default:
			strange = append(strange, path)
		}
	}
	return ids, strange, nil
}

// runEntries lists a directory of the run directory, sorted; one that isn't
// there has none.
func (n *Network) runEntries(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(filepath.Join(n.cfg.RunDir, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list attached replicas: %w", err)
	}
	return entries, nil
}

// Strange lists the paths among those of replicas' namespaces and files that
// aren't an agent's. Nothing touches them.
func (n *Network) Strange() ([]string, error) {
	_, strange, err := n.runFiles()
	return strange, err
}

// replicaDamage names what is missing of the replica on the host: the kernel
// drops routes and neighbours of a link that somebody sets down, and doesn't
// bring them back with it.
func (n *Network) replicaDamage(p present, replica string) ([]spec.Damage, error) {
	damage := func(kind spec.DamageKind, format string, args ...any) spec.Damage {
		return spec.Damage{Kind: kind, Replica: replica, What: fmt.Sprintf(format, args...)}
	}
	if mounted, err := isNamespace(n.Namespace(replica)); err != nil || !mounted {
		return []spec.Damage{damage(spec.DamageNamespace, "namespace of %s not mounted", replica)}, err
	}
	addrs, found, err := n.recorded(replica)
	if err != nil || !found {
		return []spec.Damage{damage(spec.DamageNamespace, "host files of %s gone", replica)}, err
	}
	if len(addrs) == 0 { // in the host's network, or none: there is no link
		return nil, nil
	}
	link := p.links[replica]
	switch {
	case link == nil:
		return []spec.Damage{damage(spec.DamageLink, "link %s of %s gone", hostLink(replica), replica)}, nil
	case link.Flags&net.FlagUp == 0:
		return []spec.Damage{damage(spec.DamageLink, "link %s of %s down", link.Name, replica)}, nil
	case link.RawFlags&unix.IFF_LOWER_UP == 0: // no carrier: the kernel sends a message of that, but of nothing else inside
		return []spec.Damage{damage(spec.DamageNamespace, "%s of %s down, inside its namespace", insideName, replica)}, nil
	}
	var all []spec.Damage
	if link.MTU < p.leastMTU {
		all = append(all, damage(spec.DamageLink, "MTU of link %s of %s is %d instead of %d or more", link.Name, replica, link.MTU, p.leastMTU))
	}
	if what := endDamage(link, replica, hardwareAddr(replica, "host")); what != "" {
		all = append(all, damage(spec.DamageLink, "%s", what))
	}
	s := routeLocalnet(link.Name) // a sysctl.d file with a pattern sets it to 0: no answers to 127.0.0.1
	if now, err := n.settings.read(s); err != nil || now != s.value {
		all = append(all, damage(spec.DamageSetting, "%s", s.instead(now)))
	}
	if p.stuck[link.Index] { // the replica's answers end here
		all = append(all, damage(spec.DamageSetting, "%s", linkForwarding(link.Name).instead("0")))
	}
	mac := hardwareAddr(replica, "replica")
	for _, a := range ofFamilies(p.pools, addrs) {
		h := hop{link.Index, a}
		if !p.routes[h] {
			all = append(all, damage(spec.DamageRoute, "route to %s of %s gone", a, replica))
		}
		if !bytes.Equal(p.neighbours[h], mac) {
			all = append(all, damage(spec.DamageNeighbour, "neighbour %s of %s gone or another", a, replica))
		}
	}
	if len(all) > 0 { // the repair sets up both ends
		return all, nil
	}
	if missing := n.innardsOf(replica, link, time.Now()); missing != "" {
		all = append(all, damage(spec.DamageNamespace, "%s", missing))
	}
	return all, nil
}
