package logwriter

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	journald      = "journald"
	journalSocket = "/run/systemd/journal/socket"
)

// socket is the other end of a Forwarder. It is made of bare system calls:
// package net with its resolver is much for a process of this size. It is connected when
// something is sent, and anew after a failure.
type socket struct {
	family, kind int
	address      syscall.Sockaddr
	fd           int // -1 = not connected
	framed       []byte
	deadline     time.Time // nothing is sent after it; zero = none
}

// parseTarget reads Forward.To.
func parseTarget(to string) (*socket, error) {
	if to == journald {
		to = "unix://" + journalSocket
	}
	scheme, rest, _ := strings.Cut(to, "://")
	s := &socket{fd: -1, kind: syscall.SOCK_DGRAM}
	switch scheme {
	case "unix":
		s.family, s.address = syscall.AF_UNIX, &syscall.SockaddrUnix{Name: rest}
		if !strings.HasPrefix(rest, "/") {
			return nil, fmt.Errorf("%q has no path", to)
		}
		return s, nil
	case "tcp":
		s.kind = syscall.SOCK_STREAM
	case "udp":
	default:
		return nil, fmt.Errorf("%q is neither journald nor the address of a syslog", to)
	}
	a, err := netip.ParseAddrPort(rest)
	if err != nil {
		return nil, err
	}
	if a.Addr().Is4() {
		s.family, s.address = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	} else {
		s.family, s.address = syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return s, nil
}

// send sends one message, waiting sendLimit for each connection and each
// message at most.
func (s *socket) send(message []byte) error {
	if !s.deadline.IsZero() && time.Now().After(s.deadline) {
		return errors.New("the log has ended")
	}
	if s.fd < 0 {
		if err := s.connect(); err != nil {
			return err
		}
	}
	if s.kind == syscall.SOCK_STREAM { // octet counting, RFC 6587, 3.4.1
		s.framed = append(strconv.AppendInt(s.framed[:0], int64(len(message)), 10), ' ')
		s.framed = append(s.framed, message...)
		message = s.framed
	}
	for len(message) > 0 {
		n, err := syscall.SendmsgN(s.fd, message, nil, nil, syscall.MSG_NOSIGNAL)
		if err == syscall.EINTR {
			continue
		}
		if err == syscall.EMSGSIZE {
			return err
		}
		if err != nil {
			s.close() // a stream may have got half of it
			return s.failure("send", err)
		}
		message = message[n:]
	}
	return nil
}

func (s *socket) connect() error {
	fd, err := syscall.Socket(s.family, s.kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return s.failure("socket", err)
	}
	limit := syscall.NsecToTimeval(int64(sendLimit))
	err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit)
	if err == nil {
		err = syscall.Connect(fd, s.address) // SO_SNDTIMEO holds for it too
	}
	if err != nil {
		_ = syscall.Close(fd)
		return s.failure("connect", err)
	}
	s.fd = fd
	return nil
}

func (s *socket) failure(call string, err error) error {
	if err == syscall.EAGAIN || err == syscall.EINPROGRESS {
		return os.NewSyscallError(call, errors.New("nothing was taken for "+sendLimit.String()))
	}
	return os.NewSyscallError(call, err)
}

func (s *socket) close() {
	if s.fd >= 0 {
		_ = syscall.Close(s.fd)
		s.fd = -1
	}
}
