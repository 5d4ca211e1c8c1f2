package logwriter

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// forwarded runs a log of the text that is forwarded to where f says.
func forwarded(t *testing.T, f Forward, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "log")
	w := NewWriter(path, 100<<20, 2)
	out, err := NewForwarder(f, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Run(w, map[string]io.Reader{Stdout: strings.NewReader(text)}, Options{Forward: out}), w.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMessages holds the messages against their grammars.
func TestMessages(t *testing.T) {
	f := Forward{To: "udp://127.0.0.1:514", Tag: "shop web", Host: "host.example", Facility: 3, Project: "shop", Service: "web", Replica: "shop-web-1234-1"}
	e := parseEntry([]byte("2026-11-22T02:10:38.123456789Z stderr F text of = it \xff\n"))
	const want = "<27>1 2026-11-22T02:10:38.123456Z host.example shop_web - - - text of = it \xff"
	if got := string(f.syslog5424(nil, e)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	// RFC 5424, 6: HEADER is PRI VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID.
	grammar := regexp.MustCompile(`^<\d{1,3}>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z [!-~]{1,255} [!-~]{1,48} [!-~]{1,128} [!-~]{1,32} - (?s:.*)$`)
	for _, tag := range []string{"", "web", strings.Repeat("x", 100), "ümläut", "{{}}"} {
		f := f
		f.Tag, f.Host = tag, ""
		if got := f.syslog5424(nil, e); !grammar.Match(got) {
			t.Errorf("%q", got)
		}
	}
	if got := f.syslog3164(nil, e); !regexp.MustCompile(`^<27>[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d host\.example shop_web: text of = it `).Match(got) {
		t.Errorf("%q", got)
	}
	f.To = "unix:///dev/log"
	if got := string(f.syslog3164(nil, e)); strings.Contains(got, "host.example") || !strings.HasPrefix(got, "<27>Nov 2") {
		t.Errorf("%q", got)
	}
	fields := map[string]string{}
	e.flag = 'P'
	for line := range strings.Lines(string(f.journal(nil, e))) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok || !regexp.MustCompile("^[A-Z][A-Z0-9_]*$").MatchString(key) {
			t.Errorf("%q", line)
		}
		fields[key] = value
	}
	for key, want := range map[string]string{"MESSAGE": "text of = it \xff", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "shop web", "DUNNAGE_SERVICE": "web", "CONTAINER_PARTIAL_MESSAGE": "true"} {
		if fields[key] != want {
			t.Errorf("%s is %q, want %q", key, fields[key], want)
		}
	}
}

// TestForward sends to each kind of socket what a program wrote.
func TestForward(t *testing.T) {
	unixPath := filepath.Join(t.TempDir(), "log")
	local, err := net.ListenPacket("unixgram", unixPath)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	packets := func(c net.PacketConn) func() (string, error) {
		return func() (string, error) {
			b := make([]byte, 1<<17)
			n, _, err := c.ReadFrom(b)
			return string(b[:n]), err
		}
	}
	var stream *bufio.Reader
	for to, next := range map[string]func() (string, error){
		"unix://" + unixPath:                packets(local),
		"udp://" + udp.LocalAddr().String(): packets(udp),
		"tcp://" + tcp.Addr().String(): func() (string, error) {
			if stream == nil {
				c, err := tcp.Accept()
				if err != nil {
					return "", err
				}
				t.Cleanup(func() { _ = c.Close() })
				stream = bufio.NewReader(c)
			}
			n := 0
			if _, err := fmt.Fscanf(stream, "%d ", &n); err != nil {
				return "", err
			}
			b := make([]byte, n)
			_, err := io.ReadFull(stream, b)
			return string(b), err
		},
	} {
		lines := make(chan string, 100)
		go func() {
			for range 4 {
				text, err := next()
				if err != nil {
					text = err.Error()
				}
				lines <- text
			}
		}()
		forwarded(t, Forward{To: to, Tag: "web", Host: "h", Format: "rfc5424"}, "one\ntwo\n"+strings.Repeat("x", MaxText+10)+"\n")
		for _, want := range []string{" web - - - one", " web - - - two", " web - - - " + strings.Repeat("x", MaxText), " web - - - xxxxxxxxxx"} {
			select {
			case got := <-lines:
				if !strings.HasPrefix(got, "<6>1 ") || !strings.HasSuffix(got, want) {
					t.Errorf("%s: %.100q, want its end as %.100q", to, got, want)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: no %.100q", to, want)
			}
		}
	}
	for _, c := range []io.Closer{local, udp, tcp} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestNobodyListens: the log has everything and says why the other end hasn't.
func TestNobodyListens(t *testing.T) {
	text := strings.Repeat("line\n", 50_000)
	path := forwarded(t, Forward{To: "unix://" + filepath.Join(t.TempDir(), "nobody")}, text)
	b, err := os.ReadFile(path)
	if err != nil || strings.Count(string(b), " stdout F line\n") != 50_000 {
		t.Errorf("%d lines, %v", strings.Count(string(b), "\n"), err)
	}
	if n := strings.Count(string(b), "nobody: connect: no such file or directory; until it works again, lines are in this log alone\n"); n != 1 {
		t.Errorf("%d reports", n)
	}
}

// TestSlowReceiver: one that takes nothing for a while holds up no program, and
// is told afterwards what it missed.
func TestSlowReceiver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	c, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	w := NewWriter(filepath.Join(t.TempDir(), "log"), 100<<20, 2)
	f, err := NewForwarder(Forward{To: "unix://" + path}, w)
	if err != nil {
		t.Fatal(err)
	}
	r, stdout := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Run(w, map[string]io.Reader{Stdout: r}, Options{Forward: f}) }()
	const lines = 20_000
	for i := range lines {
		if _, err := fmt.Fprintf(stdout, "line %06d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	room := cap(f.pending)
	f.mu.Unlock()
	if room > 2*forwardRoom {
		t.Errorf("%d bytes wait", room)
	}
	came, told, last := 0, 0, -1
	b := make([]byte, 1<<16)
	for deadline := time.Now().Add(20 * time.Second); came+told < lines; {
		if err := c.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		n, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatalf("after %d lines, and %d told of: %v", came, told, err)
		}
		_, text, _ := strings.Cut(string(b[:n]), "-: ")
		var number int
		if _, err := fmt.Sscanf(text, "dunnage: %d lines were not forwarded", &number); err == nil {
			told += number
			continue
		}
		// The last ones may come after the report: they were still on their way
		// through the writer.
		if _, err := fmt.Sscanf(text, "line %d", &number); err != nil || number <= last || told == 0 && number != last+1 {
			t.Fatalf("%q after line %d", b[:n], last)
		}
		last = number
		came++
	}
	if came+told != lines || told == 0 {
		t.Errorf("%d came and %d are told of, of %d", came, told, lines)
	}
	if err := errors.Join(stdout.Close(), <-done, w.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestBadTargets(t *testing.T) {
	for _, to := range []string{"", "syslog", "unix://", "unix://relative", "udp://log.example:514", "udp://127.0.0.1", "tcp://127.0.0.1:99999", "http://127.0.0.1:80"} {
		if _, err := NewForwarder(Forward{To: to}, nil); err == nil {
			t.Errorf("%q is accepted", to)
		}
	}
}
