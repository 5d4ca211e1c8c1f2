package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Serve answers on the port of every address of the namespace, over TCP and
// UDP: first a line "<name> <client's address and port>", then (TCP) whatever
// the client sends. It stops with the test.
func Serve(tb testing.TB, ns *NS, name string, port uint16) {
	tb.Helper()
	addr := fmt.Sprintf(":%d", port)
	l, err := ns.Listen("tcp", addr)
	if err != nil {
		tb.Fatalf("serve %s: %v", name, err)
	}
	p, err := ns.ListenPacket("udp", addr)
	if err != nil {
		tb.Fatalf("serve %s: %v", name, err)
	}
	tb.Cleanup(func() { l.Close(); p.Close() })
	go serveTCP(l, name)
	go serveUDP(p, name)
}

func serveTCP(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr()); err == nil {
				_, _ = io.Copy(c, c) // the client sees how it ends
			}
		}()
	}
}

func serveUDP(p net.PacketConn, name string) {
	b := make([]byte, 2048)
	for {
		_, from, err := p.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = p.WriteTo(fmt.Appendf(nil, "%s %s\n", name, from), from) // a lost answer is the client's timeout
		}
	}
}

// Answer is what a server of Serve said.
type Answer struct {
	Name   string
	Client netip.AddrPort // as the server saw it
}

// AskTimeout is how long Ask waits: long enough for a loaded machine, short
// enough to show that nobody answers.
const AskTimeout = 700 * time.Millisecond

// Ask connects from the namespace and returns who answered.
func Ask(ns *NS, network string, to netip.AddrPort) (Answer, error) {
	c, err := ns.Dial(network, to.String(), AskTimeout)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	return AskOn(c)
}

// AskOn asks on an open connection (TCP: a fresh one; UDP: as often as wanted).
func AskOn(c net.Conn) (Answer, error) {
	if err := c.SetDeadline(time.Now().Add(AskTimeout)); err != nil {
		return Answer{}, err
	}
	if strings.HasPrefix(c.LocalAddr().Network(), "udp") {
		if _, err := c.Write([]byte("?")); err != nil {
			return Answer{}, err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return Answer{}, err
	}
	name, client, _ := strings.Cut(strings.TrimSpace(line), " ")
	ap, err := netip.ParseAddrPort(client)
	return Answer{Name: name, Client: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}, err
}
