package main

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/test/lab"
)

// slowStarter listens from the begin of its start and notes who asks before
// the end of it.
type slowStarter struct {
	contender
	l         *lab.Lab
	server    http.Server
	disturbed bool
}

func (s *slowStarter) host() *lab.Lab { return s.l }

func (s *slowStarter) start(context.Context) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(s.l.Host.String(), port))
	if err != nil {
		return err
	}
	if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return err
	}
	if conn, err := listener.Accept(); err == nil {
		s.disturbed = true
		conn.Close()
	}
	if err := listener.(*net.TCPListener).SetDeadline(time.Time{}); err != nil {
		return err
	}
	s.server.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	go func() { _ = s.server.Serve(listener) }() // ends with remove
	return nil
}

func (s *slowStarter) remove(context.Context) error { return s.server.Close() }

// A client that asks while Docker sets its bridge up makes Docker look a second
// slower than it is.
func TestNobodyAsksWhileAStartRuns(t *testing.T) {
	testenv.Host(t, func() {
		l := lab.New("dunnage-benchtest", t.TempDir(), 97)
		l.OnMachine, l.Host = true, netip.MustParseAddr("127.0.0.1")
		s := &slowStarter{l: l}
		took, err := timeStart(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		if s.disturbed {
			t.Error("the port was asked while the command ran")
		}
		if took < 100*time.Millisecond {
			t.Errorf("%v leaves the command's own time out", took)
		}
	})
}
