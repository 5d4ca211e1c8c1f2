package netns

import (
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// netfilterTimeout bounds one send or receive, as netlink does for its own sockets.
const netfilterTimeout = 60 * time.Second

// netfilter is a netlink socket to the kernel's netfilter, one request at a
// time. It stays open: to close one takes 12 ms after anybody's commit of
// rules, because the kernel then waits until no CPU uses the old rules any more.
type netfilter struct {
	mu   sync.Mutex
	open map[int]*nl.SocketHandle // nil before the first request
}

func (s *netfilter) execute(req *nl.NetlinkRequest) ([][]byte, error) {
	open, err := s.socket()
	if err != nil {
		return nil, err
	}
	req.Sockets = open
	return req.Execute(unix.NETLINK_NETFILTER, 0)
}

func (s *netfilter) socket() (map[int]*nl.SocketHandle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil {
		return s.open, nil
	}
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	limit := unix.NsecToTimeval(netfilterTimeout.Nanoseconds())
	if err := socket.SetSendTimeout(&limit); err != nil {
		return nil, fmt.Errorf("limit netlink's sends: %w", err)
	}
	if err := socket.SetReceiveTimeout(&limit); err != nil {
		return nil, fmt.Errorf("limit netlink's receives: %w", err)
	}
	s.open = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
	return s.open, nil
}
