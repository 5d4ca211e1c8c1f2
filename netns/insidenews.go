package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// subscribeInside opens a socket that gets the messages about links in all network
// namespaces that have a number here. Those of replicas have one: the other end of
// their link is here.
func subscribeInside() (*os.File, error) {
	f, err := subscribe(unix.NETLINK_ROUTE, 1<<(unix.RTNLGRP_LINK-1))
	if err != nil {
		return nil, err
	}
	err = unix.SetsockoptInt(int(f.Fd()), unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
	if err == nil {
		err = unix.SetNonblock(int(f.Fd()), true) // Fd has made it blocking
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readInside takes one message. about is the number of the namespace in which it is
// about the replica's end of a link, -1 = about nothing such. It waits, until the
// file's deadline, unless now is set.
func readInside(f *os.File, buf []byte, now bool) (about int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	about = -1
	var control [64]byte
	wait := raw.Read(func(fd uintptr) bool {
		var n, c int
		n, c, _, _, err = unix.Recvmsg(int(fd), buf, control[:], unix.MSG_DONTWAIT)
		if err == nil {
			about = aboutInside(buf[:n], control[:c])
		}
		return now || !errors.Is(err, unix.EAGAIN)
	})
	if wait != nil {
		return -1, wait
	}
	return about, err
}

// aboutInside reads the number of the namespace, which comes beside the message.
func aboutInside(message, control []byte) int {
	if len(message) < unix.SizeofNlMsghdr || !anyAttribute(message[unix.SizeofNlMsghdr:], sizeofLink, unix.IFLA_IFNAME, func(v []byte) bool {
		return strings.TrimRight(string(v), "\x00") == insideName
	}) {
		return -1
	}
	all, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return -1
	}
	for _, c := range all {
		if c.Header.Level == unix.SOL_NETLINK && c.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(c.Data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(c.Data)))
		}
	}
	return -1 // of this namespace
}

// listenInside nudges for each message about a replica's end, until ctx ends.
func (n *Network) listenInside(ctx context.Context, f *os.File, found chan<- struct{}) {
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) })()
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		about, err := readInside(f, buf, false)
		switch {
		case errors.Is(err, unix.ENOBUFS): // some were lost
			nudge(found)
		case err != nil && !errors.Is(err, unix.EINTR):
			return // ctx has ended
		case about >= 0 && n.isReplicas(about):
			nudge(found)
		}
	}
}

// isReplicas reports whether the namespace with the number had a link of ours at
// the last look. What is newer, a look is due for anyway.
func (n *Network) isReplicas(namespace int) bool {
	n.seen.Lock()
	defer n.seen.Unlock()
	if n.seen.state == nil {
		return false
	}
	for _, l := range n.seen.state.links {
		if l.NetNsID == namespace {
			return true
		}
	}
	return false
}
