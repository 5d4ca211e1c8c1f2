package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// visitor is attached like a replica, under a name that none can have: those of
// replicas have dashes. Its namespace holds no process, only the sockets of
// visits, and its address is the reserved one of the pools.
const visitor = "visitor"

// visits is what Dial keeps.
type visits struct {
	mu     sync.Mutex
	home   int       // the host's namespace, open; 0 = not yet
	mended time.Time // when what is inside the visitor's namespace was set up last
}

// mendAgain is how soon the inside of the visitor's namespace, of whose damage
// only failing visits tell, may be set up again.
const mendAgain = time.Second

// Dial connects from the visitor's namespace, which is made or mended first, or
// from the host. When it can't even try, the error wraps spec.ErrUnavailable.
func (n *Network) Dial(ctx context.Context, from spec.Vantage, to netip.AddrPort) (net.Conn, error) {
	if from == spec.FromHost {
		return (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", to.String())
	}
	if err := n.ensureVisitor(ctx, false); err != nil {
		return nil, err
	}
	c, err := n.dialInside(ctx, to)
	if err != nil && !errors.Is(err, spec.ErrUnavailable) && elsewhere(to.Addr()) {
		return nil, fmt.Errorf("the host has no address %s: %w", to.Addr(), err)
	}
	if lost := errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL); !lost || !n.mayMend() {
		return c, err
	}
	if err := n.ensureVisitor(ctx, true); err != nil {
		return nil, err
	}
	return n.dialInside(ctx, to)
}

// elsewhere reports whether an address isn't one of the host's own.
func elsewhere(a netip.Addr) bool {
	found, err := netlink.RouteGet(a.AsSlice())
	return err != nil || len(found) > 0 && found[0].Type != unix.RTN_LOCAL
}

func (n *Network) mayMend() bool {
	n.visits.mu.Lock()
	defer n.visits.mu.Unlock()
	if time.Since(n.visits.mended) < mendAgain {
		return false
	}
	n.visits.mended = time.Now()
	return true
}

// PrepareVisits makes the visitor's namespace ahead of the first visit.
func (n *Network) PrepareVisits(ctx context.Context) error { return n.ensureVisitor(ctx, false) }

// ensureVisitor makes what is missing of the visitor's namespace and link, and
// with anew also what can't be seen from the host.
func (n *Network) ensureVisitor(ctx context.Context, anew bool) error {
	defer n.replicas.Lock(visitor)()
	whole, err := n.visitorWhole()
	if err == nil && (anew || !whole) {
		err = n.attachVisitor(ctx)
	}
	if err != nil {
		return fmt.Errorf("set the visitor up: %w: %w", spec.ErrUnavailable, err)
	}
	return nil
}

func (n *Network) attachVisitor(ctx context.Context) error {
	if err := n.ensureHost(ctx); err != nil {
		return err
	}
	e := n.visitorEndpoint()
	ns, err := n.openNamespace(ctx, e)
	if err != nil {
		return err
	}
	defer ns.Close()
	return n.setUp(ctx, ns, e)
}

func (n *Network) visitorEndpoint() spec.Endpoint {
	a := spec.EndpointAddress{Subnet: rules.ReservedSubnet(n.cfg.Pool), Addr: rules.Reserved(n.cfg.Pool).Visitor}
	if n.cfg.Pool6.IsValid() {
		a.Subnet6, a.Addr6 = rules.ReservedSubnet(n.cfg.Pool6), rules.Reserved(n.cfg.Pool6).Visitor
	}
	return spec.Endpoint{Replica: visitor, Addresses: []spec.EndpointAddress{a}}
}

// visitorWhole reports whether nothing of the visitor is missing on the host.
func (n *Network) visitorWhole() (bool, error) {
	if mounted, err := isNamespace(n.Namespace(visitor)); err != nil || !mounted {
		return false, err
	}
	have, err := n.kernelState()
	if err != nil || have.visitor == nil || have.visitor.Flags&net.FlagUp == 0 || have.visitor.RawFlags&unix.IFF_LOWER_UP == 0 || have.visitor.MTU < have.leastMTU || endDamage(have.visitor, visitor, hardwareAddr(visitor, "host")) != "" || have.stuck[have.visitor.Index] {
		return false, err
	}
	mac := hardwareAddr(visitor, "replica")
	for _, a := range ofFamilies(n.usable(), endpointAddrs(n.visitorEndpoint())) {
		h := hop{have.visitor.Index, a}
		if !have.routes[h] || !bytes.Equal(have.neighbours[h], mac) {
			return false, nil
		}
	}
	return true, nil
}

// dialInside makes the socket in the visitor's namespace, to which it belongs
// from then on whoever uses it. The thread is there for that long only.
func (n *Network) dialInside(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	home, err := n.home()
	if err != nil {
		return nil, err
	}
	ns, err := unix.Open(n.Namespace(visitor), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // a FIFO would block
	if err != nil {
		return nil, fmt.Errorf("open the visitor's namespace: %w: %w", spec.ErrUnavailable, err)
	}
	defer unix.Close(ns)
	runtime.LockOSThread()
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter the visitor's namespace: %w: %w", spec.ErrUnavailable, err)
	}
	away := true
	back := func() error {
		if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("leave the visitor's namespace: %w: %w", spec.ErrUnavailable, err) // the thread stays locked, and dies with the goroutine
		}
		away = false
		runtime.UnlockOSThread()
		return nil
	}
	// With a literal address, the dialer makes the socket on this goroutine.
	d := net.Dialer{KeepAlive: -1, Control: func(string, string, syscall.RawConn) error { return back() }}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if away {
		err = errors.Join(err, back())
	}
	return c, err
}

// home is the host's network namespace.
func (n *Network) home() (int, error) {
	n.visits.mu.Lock()
	defer n.visits.mu.Unlock()
	if n.visits.home > 0 {
		return n.visits.home, nil
	}
	fd, err := unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open the host's namespace: %w: %w", spec.ErrUnavailable, err)
	}
	n.visits.home = fd
	return fd, nil
}

// removeVisitor removes its link and namespace.
func (n *Network) removeVisitor() error {
	defer n.replicas.Lock(visitor)()
	l, err := netlink.LinkByName(rules.VisitorLink)
	var notFound netlink.LinkNotFoundError
	switch {
	case errors.As(err, &notFound):
		err = nil
	case err == nil:
		err = deleteLink(netlink.LinkDel, l)
	}
	return errors.Join(err, n.removeNamespace(visitor))
}
