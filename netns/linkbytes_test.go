package netns

import (
	"bytes"
	"io"
	"net"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestLinkBytes: what a replica receives counts as received, what it sends as
// sent, and each replica's for itself.
func TestLinkBytes(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		app := w.attach("app", member(network(1, false), 10))
		w.attach("other", member(network(1, false), 11))
		l, err := app.Listen("tcp", "0.0.0.0:80")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		read := make(chan int64, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				read <- -1
				return
			}
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			read <- n
		}()
		before := w.bytes()
		const size = 4 << 20
		c, err := net.Dial("tcp", app.addrs[0].Addr.String()+":80")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(c, bytes.NewReader(make([]byte, size))); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if n := <-read; n != size {
			t.Fatalf("%d bytes arrived", n)
		}
		after := w.bytes()
		received, sent := after["app"].Received-before["app"].Received, after["app"].Sent-before["app"].Sent
		if received < size || received > size+size/4 || sent <= 0 || sent > size/4 {
			t.Errorf("received %d, sent %d after %d bytes were sent to it", received, sent, size)
		}
		if got := after["other"]; len(after) != 2 || got.Received > 10_000 || got.Sent > 10_000 {
			t.Errorf("others: %+v", after)
		}
	})
}

func (w *world) bytes() map[string]spec.LinkBytes {
	w.Helper()
	all, err := w.net.LinkBytes()
	if err != nil {
		w.Fatal(err)
	}
	return all
}
