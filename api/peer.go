package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// Peer is who is at the other end of a connection, as the kernel says.
type Peer struct {
	Pid, Uid, Gid int
	Groups        []int // supplementary
}

type peerKey struct{}

// PeerFrom returns the client that a request's context belongs to.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// owner names the user behind a request for the others who use the agent;
// empty when the kernel didn't tell.
func owner(ctx context.Context) string {
	if _, ok := PeerFrom(ctx); !ok {
		return ""
	}
	return actor(ctx).Name()
}

// actor is the user behind a request as the audit record has it.
func actor(ctx context.Context) spec.Actor {
	p, ok := PeerFrom(ctx)
	if !ok {
		return spec.Actor{User: "unknown"}
	}
	return spec.Actor{UID: &p.Uid, User: userName(p.Uid)}
}

// userName is empty for a user without a name.
func userName(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return ""
	}
	return u.Username
}

// mayChange reports whether the peer may do more than read: root, the user
// that the agent runs as, and members of the socket's group. Others get this
// far only if somebody opened the socket's mode to them.
func (p Peer) mayChange(group int) bool {
	if p.Uid == 0 || p.Uid == os.Geteuid() {
		return true
	}
	return group >= 0 && (p.Gid == group || slices.Contains(p.Groups, group))
}

// withPeer is the server's ConnContext. A connection whose peer can't be told
// gets no Peer, and so may only read.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	p, err := peerOf(c)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(c net.Conn) (p Peer, err error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return p, fmt.Errorf("%T has no descriptor", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return p, err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		var u *unix.Ucred
		if u, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		p = Peer{Pid: int(u.Pid), Uid: int(u.Uid), Gid: int(u.Gid)}
		p.Groups, err = peerGroups(int(fd))
	})
	return p, errors.Join(ctlErr, err)
}

// peerGroups asks for the supplementary groups with SO_PEERGROUPS (Linux
// 4.13), which x/sys has no call for. /etc/group could say something else than
// the process has, and directory services aren't in it.
func peerGroups(fd int) ([]int, error) {
	buf := make([]uint32, 64)
	for {
		size := uint32(len(buf)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno == unix.ERANGE { // size now says how much is needed
			buf = make([]uint32, size/4+1)
			continue
		}
		if errno != 0 {
			return nil, fmt.Errorf("peer groups: %w", errno)
		}
		groups := make([]int, size/4)
		for i := range groups {
			groups[i] = int(buf[i])
		}
		return groups, nil
	}
}
