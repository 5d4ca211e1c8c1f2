package testenv

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// NS is a network namespace that tests act in.
type NS struct {
	file *os.File
}

// NewNS makes an empty namespace with its loopback up.
func NewNS(tb testing.TB) *NS {
	tb.Helper()
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in the new namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		made <- result{f, err}
	}()
	r := <-made
	if r.err != nil {
		tb.Fatalf("make namespace: %v", r.err)
	}
	ns := closing(tb, r.file)
	ns.Run(tb, "ip", "link", "set", "lo", "up")
	return ns
}

// OpenNS opens a namespace that is mounted at path.
func OpenNS(tb testing.TB, path string) *NS {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatalf("open namespace: %v", err)
	}
	return closing(tb, f)
}

func closing(tb testing.TB, f *os.File) *NS {
	tb.Cleanup(func() { f.Close() })
	return &NS{file: f}
}

// HostNS is the namespace of the test process. Its first thread, which
// /proc/self speaks of, may have been Do's and still be elsewhere.
func HostNS(tb testing.TB) *NS { return OpenNS(tb, "/proc/thread-self/ns/net") }

// Do runs f on a thread inside the namespace. Sockets that f opens stay there;
// processes that it starts run there.
func (n *NS) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: cheaper than trusting the way back
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Run runs a command inside; failure ends the test.
func (n *NS) Run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	var out []byte
	err := n.Do(func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	if err != nil {
		tb.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Dial connects from inside. addr must be an address, not a name.
func (n *NS) Dial(network, addr string, timeout time.Duration) (c net.Conn, err error) {
	err = n.Do(func() (err error) {
		c, err = net.DialTimeout(network, addr, timeout)
		return err
	})
	return c, err
}

// Listen listens inside.
func (n *NS) Listen(network, addr string) (l net.Listener, err error) {
	err = n.Do(func() (err error) {
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}

// ListenPacket listens inside.
func (n *NS) ListenPacket(network, addr string) (c net.PacketConn, err error) {
	err = n.Do(func() (err error) {
		c, err = net.ListenPacket(network, addr)
		return err
	})
	return c, err
}

// LAN is what surrounds the host: a link to a client on each of two networks.
// The host's default route leads through the first, so Client is "outside".
type LAN struct {
	Host, Client, Attacker           *NS
	HostAddr, HostAddr6              netip.Addr // the host's on the client's link
	ClientAddr, ClientAddr6          netip.Addr
	AttackerHostAddr, AttackerAddr   netip.Addr // on the attacker's link
	AttackerHostAddr6, AttackerAddr6 netip.Addr
}

// NewLAN builds the surroundings of a Host test.
func NewLAN(tb testing.TB) *LAN {
	tb.Helper()
	l := &LAN{
		Host: HostNS(tb), Client: NewNS(tb), Attacker: NewNS(tb),
		HostAddr: netip.MustParseAddr("192.0.2.1"), ClientAddr: netip.MustParseAddr("192.0.2.2"),
		HostAddr6: netip.MustParseAddr("2001:db8:2::1"), ClientAddr6: netip.MustParseAddr("2001:db8:2::2"),
		AttackerHostAddr: netip.MustParseAddr("198.51.100.1"), AttackerAddr: netip.MustParseAddr("198.51.100.2"),
		AttackerHostAddr6: netip.MustParseAddr("2001:db8:3::1"), AttackerAddr6: netip.MustParseAddr("2001:db8:3::2"),
	}
	link(tb, l.Client, "lan0", l.HostAddr, l.ClientAddr, l.HostAddr6, l.ClientAddr6)
	link(tb, l.Attacker, "lan1", l.AttackerHostAddr, l.AttackerAddr, l.AttackerHostAddr6, l.AttackerAddr6)
	Run(tb, "ip", "route", "add", "default", "via", l.ClientAddr.String())
	Run(tb, "ip", "-6", "route", "add", "default", "via", l.ClientAddr6.String())
	return l
}

func link(tb testing.TB, peer *NS, name string, host, addr, host6, addr6 netip.Addr) {
	tb.Helper()
	Run(tb, "ip", "link", "add", name, "type", "veth", "peer", "name", name+"p")
	// A process that holds the namespace is the handle that ip(8) accepts.
	hold := exec.Command("sleep", "60")
	if err := peer.Do(hold.Start); err != nil {
		tb.Fatalf("hold namespace: %v", err)
	}
	Run(tb, "ip", "link", "set", name+"p", "netns", fmt.Sprint(hold.Process.Pid))
	_ = hold.Process.Kill()
	_ = hold.Wait() // killed: the error says so
	Run(tb, "ip", "addr", "add", host.String()+"/24", "dev", name)
	Run(tb, "ip", "addr", "add", host6.String()+"/64", "dev", name, "nodad")
	Run(tb, "ip", "link", "set", name, "up")
	peer.Run(tb, "ip", "link", "set", name+"p", "name", "eth0")
	peer.Run(tb, "ip", "addr", "add", addr.String()+"/24", "dev", "eth0")
	peer.Run(tb, "ip", "addr", "add", addr6.String()+"/64", "dev", "eth0", "nodad")
	peer.Run(tb, "ip", "link", "set", "eth0", "up")
	peer.Run(tb, "ip", "route", "add", "default", "via", host.String())
	peer.Run(tb, "ip", "-6", "route", "add", "default", "via", host6.String())
}
