package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers each request on a connection by the handler until that returns false.
func serve(t *testing.T, handle func(c *net.TCPConn, r *http.Request) bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					r, err := http.ReadRequest(in)
					if err != nil || !handle(conn.(*net.TCPConn), r) {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// respond writes a whole answer and reports whether the connection stays open.
func respond(c io.Writer, version, body string, closing bool) bool {
	header := ""
	if closing {
		header = "Connection: close\r\n"
	}
	_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Version: %s\r\n%sContent-Length: %d\r\n\r\n%s", version, header, len(body), body)
	return err == nil && !closing
}

func good(c *net.TCPConn, r *http.Request) bool {
	if n, _ := strconv.ParseInt(r.FormValue("bytes"), 10, 64); n > 0 {
		p := make([]byte, n)
		Pattern(p, 0)
		return respond(c, "v1", string(p), r.Close)
	}
	return respond(c, "v1", "hello", r.Close)
}

func run(t *testing.T, c Config) Report {
	t.Helper()
	if c.Duration == 0 {
		c.Duration = 500 * time.Millisecond
	}
	rep, err := Run(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(rep)
	return rep
}

func TestNothingFails(t *testing.T) {
	rep := run(t, Config{
		Addr: serve(t, good), Rate: 200, KeepAlive: 5, Interval: 10 * time.Millisecond,
		Downloads: 2, DownloadPath: "/d?bytes=100000", DownloadBytes: 100000,
	})
	if rep.Failed != 0 {
		t.Errorf("%d failed: %v", rep.Failed, rep.Reasons)
	}
	if n := rep.Kinds[New].Asked; n < 90 || n > 101 {
		t.Errorf("%d new connections in 0.5 s at 200 a second", n)
	}
	if rep.Kinds[KeepAlive].Asked < 50 || rep.Kinds[Download].Asked < 4 {
		t.Errorf("kinds: %v", rep.Kinds)
	}
	if rep.Versions["v1"] != rep.Asked {
		t.Errorf("versions %v of %d answers", rep.Versions, rep.Asked)
	}
}

// Every way of losing a request must be seen, with its reason.
func TestFailuresAreSeen(t *testing.T) {
	reset := func(c *net.TCPConn, _ *http.Request) bool { _ = c.SetLinger(0); return false }
	cases := []struct {
		name   string
		handle func(*net.TCPConn, *http.Request) bool
		config Config
		reason string
	}{
		{"reset", reset, Config{Rate: 50}, "new: read answer: reset"},
		{"closed without an answer", func(*net.TCPConn, *http.Request) bool { return false }, Config{Rate: 50}, "new: read answer: ended early"},
		{"cut in the body", func(c *net.TCPConn, _ *http.Request) bool {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			return false
		}, Config{Rate: 50}, "new: read body: ended early"},
		{"reset behind the answer", func(c *net.TCPConn, r *http.Request) bool {
			respond(c, "v1", "hello", true)
			time.Sleep(20 * time.Millisecond) // the answer arrives first
			return reset(c, r)
		}, Config{Rate: 50}, "new: await close: reset"},
		{"error status", func(c *net.TCPConn, _ *http.Request) bool {
			_, _ = io.WriteString(c, "HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			return false
		}, Config{Rate: 50}, "new: status 503"},
		{"no answer", func(c *net.TCPConn, _ *http.Request) bool {
			_, _ = io.Copy(io.Discard, c)
			return false
		}, Config{Rate: 50, Timeout: 50 * time.Millisecond}, "new: read answer: timeout"},
		{"idle connection closed unannounced", func(c *net.TCPConn, _ *http.Request) bool {
			respond(c, "v1", "hello", false)
			return false
		}, Config{KeepAlive: 2, Interval: 20 * time.Millisecond}, "keep-alive: "},
		{"download cut", func(c *net.TCPConn, _ *http.Request) bool {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
			return false
		}, Config{Downloads: 1, DownloadPath: "/", DownloadBytes: 10}, "download: read body: ended early"},
		{"download with a wrong byte", func(c *net.TCPConn, _ *http.Request) bool {
			p := make([]byte, 1000)
			Pattern(p, 0)
			p[700]++
			return respond(c, "v1", string(p), true)
		}, Config{Downloads: 1, DownloadPath: "/", DownloadBytes: 1000}, "download: read body: wrong bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.config.Addr = serve(t, c.handle)
			c.config.Duration = 200 * time.Millisecond
			rep := run(t, c.config)
			if rep.Failed == 0 {
				t.Fatalf("no failure seen in %d requests", rep.Asked)
			}
			for reason := range rep.Reasons {
				if !strings.HasPrefix(reason, c.reason) {
					t.Errorf("reason %q, want %q", reason, c.reason)
				}
			}
		})
	}
}

func TestRefusedIsSeen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	rep := run(t, Config{Addr: l.Addr().String(), Rate: 50})
	if rep.Failed != rep.Asked || rep.Reasons["new: connect: refused"] != rep.Asked {
		t.Errorf("%+v", rep)
	}
	if rep.LongestGap < 400 {
		t.Errorf("longest gap %v ms though nothing ever answered in 500 ms", rep.LongestGap)
	}
}

func TestAnnouncedCloseIsNoFailure(t *testing.T) {
	var n atomic.Int64
	addr := serve(t, func(c *net.TCPConn, _ *http.Request) bool {
		return respond(c, "v1", "hello", n.Add(1)%3 == 0)
	})
	rep := run(t, Config{Addr: addr, KeepAlive: 3, Interval: 10 * time.Millisecond})
	if rep.Failed != 0 || rep.Asked < 30 {
		t.Errorf("%+v", rep)
	}
}

func TestLongestGap(t *testing.T) {
	begin := time.Now()
	addr := serve(t, func(c *net.TCPConn, r *http.Request) bool {
		// Nothing is answered between 200 and 500 ms after the beginning.
		if d := time.Since(begin); d > 200*time.Millisecond && d < 500*time.Millisecond {
			time.Sleep(500*time.Millisecond - d)
		}
		return good(c, r)
	})
	rep := run(t, Config{Addr: addr, Rate: 200, Duration: 800 * time.Millisecond})
	if rep.Failed != 0 {
		t.Errorf("%d failed: %v", rep.Failed, rep.Reasons)
	}
	if rep.LongestGap < 280 || rep.LongestGap > 450 {
		t.Errorf("longest gap %v ms, want about 300", rep.LongestGap)
	}
	if at := rep.GapAt.Sub(begin); at < 100*time.Millisecond || at > 300*time.Millisecond {
		t.Errorf("gap began after %v, want about 200 ms", at)
	}
}

func TestTooManyInFlightAreCounted(t *testing.T) {
	addr := serve(t, func(c *net.TCPConn, r *http.Request) bool {
		time.Sleep(200 * time.Millisecond)
		return good(c, r)
	})
	rep := run(t, Config{Addr: addr, Rate: 100, MaxInFlight: 2, Duration: 300 * time.Millisecond})
	if rep.Reasons["new: not sent: too many requests in flight"] == 0 {
		t.Errorf("%+v", rep)
	}
}

func TestUDP(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lossy=%v", lossy), func(t *testing.T) {
			rep := run(t, Config{UDP: 3, UDPAddr: echo(t, lossy), Interval: 10 * time.Millisecond, Timeout: 50 * time.Millisecond})
			if lossy != (rep.Failed > 0) || rep.Asked < 10 || rep.Versions["v1"] == 0 {
				t.Errorf("%+v", rep)
			}
		})
	}
}

// echo answers each datagram with itself and a version; a lossy one forgets every fourth.
func echo(t *testing.T, lossy bool) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 100)
		for i := 1; ; i++ {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if lossy && i%4 == 0 {
				continue
			}
			_, _ = pc.WriteTo([]byte(string(buf[:n])+" v1"), from)
		}
	}()
	return pc.LocalAddr().String()
}

func TestNothingToSendIsAnError(t *testing.T) {
	if _, err := Run(context.Background(), Config{Addr: "127.0.0.1:1"}); err == nil {
		t.Error("no error")
	}
	if _, err := Run(context.Background(), Config{Addr: "127.0.0.1:1", Downloads: 1}); err == nil {
		t.Error("no error for downloads without a length")
	}
}
