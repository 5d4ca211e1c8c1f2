package netns

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// Holder names the process of the host that listens on the port, or is empty.
// A zero or unspecified ip asks for every address: any listener is in the way.
// A listener on all addresses is in the way of every ip; one on [::] holds the
// IPv4 port too (the kernel doesn't tell whether it was made IPv6-only).
func (n *Network) Holder(ctx context.Context, ip netip.Addr, port uint16, proto spec.Protocol) (string, error) {
	if bindable(ip, port, proto) {
		return "", nil
	}
	for _, suffix := range []string{"", "6"} {
		sockets, err := readSockets("/proc/thread-self/net/" + string(proto) + suffix)
		if err != nil {
			return "", err
		}
		for _, s := range sockets {
			if s.port == port && s.bound(proto) && s.conflicts(ip) {
				return processOf(ctx, s.inode)
			}
		}
	}
	return "", nil
}

// bindable reports whether a process could listen on the port now. It spares
// the kernel's tables, which take 5 ms each to read however little is in them.
// With SO_REUSEADDR only a listener is in the way of TCP, not old connections;
// for UDP it would let two share the port.
func bindable(ip netip.Addr, port uint16, proto spec.Protocol) bool {
	family, kind := unix.AF_INET6, unix.SOCK_STREAM
	if proto == spec.UDP {
		kind = unix.SOCK_DGRAM
	}
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(port)}
	switch {
	case !ip.IsValid() || ip.IsUnspecified(): // [::] stands for every address of both families
	case ip.Is4():
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: ip.As4()}
	default:
		to = &unix.SockaddrInet6{Port: int(port), Addr: ip.As16()}
	}
	s, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(s)
	if family == unix.AF_INET6 && unix.SetsockoptInt(s, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0) != nil {
		return false
	}
	if kind == unix.SOCK_STREAM && unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) != nil {
		return false
	}
	return unix.Bind(s, to) == nil
}

// socket is a line of /proc/net/tcp and its kin.
type socket struct {
	addr  netip.Addr
	port  uint16
	state uint64
	inode string
}

// The kernel's socket states (include/net/tcp_states.h): listening for TCP; an
// unconnected UDP socket is "closed".
const (
	stateClose  = 7
	stateListen = 10
)

func (s socket) bound(proto spec.Protocol) bool {
	if proto == spec.TCP {
		return s.state == stateListen
	}
	return s.state == stateClose
}

func (s socket) conflicts(ip netip.Addr) bool {
	return !ip.IsValid() || ip.IsUnspecified() || s.addr.IsUnspecified() || s.addr.Unmap() == ip.Unmap()
}

// readSockets parses the table; a missing one (no IPv6) is empty.
func readSockets(path string) ([]socket, error) {
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	var all []socket
	for line := range bytes.Lines(b) {
		if s, ok := parseSocket(strings.Fields(string(line))); ok {
			all = append(all, s)
		}
	}
	return all, nil
}

func parseSocket(f []string) (socket, bool) {
	if len(f) < 10 {
		return socket{}, false
	}
	addr, port, _ := strings.Cut(f[1], ":")
	raw, err := hex.DecodeString(addr)
	p, err2 := strconv.ParseUint(port, 16, 16)
	state, err3 := strconv.ParseUint(f[3], 16, 8)
	if err != nil || err2 != nil || err3 != nil || len(raw)%4 != 0 {
		return socket{}, false
	}
	// Each 32-bit word of the address is printed in the machine's byte order.
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return socket{addr: a, port: uint16(p), state: state, inode: f[9]}, ok
}

// processOf finds who has the socket open. Nobody (a kernel service, or it
// closed meanwhile) is named as such: the port was taken a moment ago.
func processOf(ctx context.Context, inode string) (string, error) {
	want := "socket:[" + inode + "]"
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "", fmt.Errorf("list processes: %w", err)
	}
	for _, proc := range procs {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if hasFile(proc, want) {
			return describe(proc), nil
		}
	}
	return "a socket without a process", nil
}

func hasFile(proc, want string) bool {
	entries, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return false // gone meanwhile
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(proc, "fd", e.Name())); err == nil && to == want {
			return true
		}
	}
	return false
}

func describe(proc string) string {
	name, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil {
		name = []byte("process")
	}
	return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(proc))
}
