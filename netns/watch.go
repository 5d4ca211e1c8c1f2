package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/netns/rules"
)

// Times of watching.
const (
	// settle lets a tool finish what it has begun: most change a table at a time.
	settle = 5 * time.Millisecond
	// paceBurst values are delivered at once and then one every pace: a tool that
	// changes rules ten times a second must not keep a core busy with looking.
	paceBurst = 4
	pace      = 300 * time.Millisecond
	// pollEvery is how often that is asked for which the kernel sends nothing, in
	// step with the clock: the probes of replicas come in the same moments.
	pollEvery = 250 * time.Millisecond
	// pollShare bounds the polls to one part in so many of the time: of legacy
	// tables with ten thousand rules each takes milliseconds.
	pollShare = 100
)

// Changes delivers a value whenever something of what Apply and Attach leave on
// the host may have changed, whoever did it: rules, links, addresses, routes,
// neighbours, settings, and the replica's ends of links. Values may be lost or doubled; they are delivered at
// most a few times a second. It is closed when ctx ends. It watches the network
// namespace that it is called in.
func (n *Network) Changes(ctx context.Context) <-chan struct{} {
	found := make(chan struct{}, 1)
	out := make(chan struct{}, 1)
	var wg sync.WaitGroup
	// What can't be subscribed to is seen by the polls, or by the next look.
	if f, err := subscribe(unix.NETLINK_ROUTE, routeGroups); err == nil {
		wg.Go(func() { listen(ctx, f, n.concerns, found) })
	}
	if f, err := subscribeToRules(); err == nil {
		wg.Go(func() { listen(ctx, f, func([]byte) bool { return true }, found) })
	}
	if f, err := subscribeInside(); err == nil {
		wg.Go(func() { n.listenInside(ctx, f, found) })
	}
	wg.Go(func() { n.poll(ctx, found) })
	go func() {
		defer close(out)
		paced(ctx, found, out)
		wg.Wait()
	}()
	return out
}

// nudge leaves a value unless one is there.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// paced passes news on until ctx ends.
func paced(ctx context.Context, found <-chan struct{}, out chan<- struct{}) {
	tokens := paceBurst
	last := time.Now() // when tokens was right
	pause := time.NewTimer(0)
	defer pause.Stop()
	wait := func(d time.Duration) bool {
		pause.Reset(d)
		select {
		case <-ctx.Done():
			return false
		case <-pause.C:
			return true
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-found:
		}
		if !wait(settle) {
			return
		}
		earned := int(time.Since(last) / pace)
		last = last.Add(time.Duration(earned) * pace)
		if tokens = min(tokens+earned, paceBurst); tokens == 0 {
			if !wait(time.Until(last.Add(pace))) {
				return
			}
			last, tokens = last.Add(pace), 1
		}
		tokens--
		nudge(out)
	}
}

// routeGroups are the groups of messages that wake, as bits. Netconf is about
// settings of interfaces, such as forwarding.
const routeGroups = newsGroups | 1<<(unix.RTNLGRP_IPV6_NETCONF-1)

// subscribe opens a netlink socket that gets the messages of the groups.
func subscribe(protocol int, groups uint32) (*os.File, error) {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(err, unix.Close(s))
	}
	return os.NewFile(uintptr(s), "netlink"), nil
}

// subscribeToRules opens a socket that gets one message a commit to nf_tables,
// that of the new generation. The others, one for each rule, are filtered out:
// a swap of ten thousand rules would fill the socket.
func subscribeToRules() (*os.File, error) {
	var kind [2]byte
	binary.NativeEndian.PutUint16(kind[:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN)
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4}, // nlmsg_type
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(binary.BigEndian.Uint16(kind[:])), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	f, err := subscribe(unix.NETLINK_NETFILTER, 1<<(unix.NFNLGRP_NFTABLES-1))
	if err != nil {
		return nil, err
	}
	err = unix.SetsockoptSockFprog(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err == nil {
		err = unix.SetNonblock(int(f.Fd()), true) // Fd has made it blocking
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// listen nudges for each message that concerns us, until ctx ends.
func listen(ctx context.Context, f *os.File, concerns func([]byte) bool, found chan<- struct{}) {
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) })()
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS): // some were lost
			nudge(found)
		case err != nil && !errors.Is(err, unix.EINTR):
			return // ctx has ended
		case err == nil && concerns(buf[:n]):
			nudge(found)
		}
	}
}

// Sizes of the headers in front of the attributes.
const (
	sizeofLink    = 16 // struct ifinfomsg
	sizeofAddress = 8  // struct ifaddrmsg
	sizeofRoute   = 12 // struct rtmsg
	sizeofNeigh   = 12 // struct ndmsg
)

// concerns reports whether one of the rtnetlink messages is about what is ours.
// A host on a busy LAN sends some about neighbours all the time.
func (n *Network) concerns(messages []byte) bool {
	for len(messages) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(messages))
		if size < unix.SizeofNlMsghdr || size > len(messages) {
			return true // not understood
		}
		kind, body := binary.NativeEndian.Uint16(messages[4:]), messages[unix.SizeofNlMsghdr:size]
		switch kind {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			if anyAttribute(body, sizeofLink, unix.IFLA_IFNAME, func(v []byte) bool {
				name := strings.TrimRight(string(v), "\x00")
				return name == "lo" || strings.HasPrefix(name, rules.LinkPrefix)
			}) {
				return true
			}
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			if anyAttribute(body, sizeofAddress, unix.IFA_ADDRESS, n.inPool) {
				return true
			}
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if anyAttribute(body, sizeofRoute, unix.RTA_DST, n.inPool) {
				return true
			}
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			if anyAttribute(body, sizeofNeigh, unix.NDA_DST, n.inPool) {
				return true
			}
		default: // settings
			return true
		}
		messages = messages[min((size+3)&^3, len(messages)):]
	}
	return false
}

func anyAttribute(body []byte, header int, kind uint16, is func([]byte) bool) (found bool) {
	if len(body) < header {
		return true
	}
	attributes(body[header:], func(k uint16, v []byte) { found = found || k == kind && is(v) })
	return found
}

func (n *Network) inPool(address []byte) bool {
	a, ok := netip.AddrFromSlice(address)
	return ok && slices.ContainsFunc(n.pools(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// poll looks at what sends no message, until ctx ends: settings, and the tables
// of the legacy backend.
func (n *Network) poll(ctx context.Context, found chan<- struct{}) {
	var legacy []programs
	for _, p := range []programs{n.tables.v4, n.tables.v6, n.tables.other4, n.tables.other6} {
		if p.legacy && p.found() {
			legacy = append(legacy, p)
		}
	}
	before := make([]uint64, len(legacy))
	timer := time.NewTimer(pollEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		if n.settings.changed() {
			nudge(found)
		}
		for i, p := range legacy {
			now, err := p.generation()
			if err == nil && now != before[i] {
				before[i] = now
				nudge(found)
			}
		}
		now := time.Now()
		timer.Reset(max(now.Truncate(pollEvery).Add(pollEvery).Sub(now), pollShare*now.Sub(began)))
	}
}
