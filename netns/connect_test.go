package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// connect times a bare connect(2), without Go's poller around it.
func connect(to netip.AddrPort) (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return 0, fmt.Errorf("set timeout: %w", err)
	}
	start := time.Now()
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	took := time.Since(start)
	if errors.Is(err, unix.EINTR) { // Go's scheduler; this one wasn't timed well
		return connect(to)
	}
	if err != nil {
		return 0, fmt.Errorf("connect to %s: %w", to, err)
	}
	return took, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}
