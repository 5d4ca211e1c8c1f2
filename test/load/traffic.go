package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// openLoop starts a request whenever one is due, whatever became of the others.
func openLoop(ctx context.Context, c Config, r *recorder) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, c.MaxInFlight)
	start := time.Now()
	for i := 0; ; i++ {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(c.Rate))
		if !sleep(ctx, time.Until(due)) {
			r.lastDue(due)
			return
		}
		r.late(time.Since(due))
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				fresh(c, r)
				<-slots
			})
		default:
			r.failed(New, errors.New("not sent: too many requests in flight"))
		}
	}
}

// fresh is one connection with one request.
func fresh(c Config, r *recorder) {
	begun := time.Now()
	a, err := once(c)
	if err != nil {
		r.failed(New, err)
		return
	}
	r.answered(New, begun, a)
}

func once(c Config) (answer, error) {
	cl, err := dial(c)
	if err != nil {
		return answer{}, err
	}
	defer cl.close()
	a, err := cl.get(c.Path, true, drain)
	if err != nil {
		return answer{}, err
	}
	return a, cl.finish()
}

// keepAlive asks again and again on one connection. It opens another one only
// where the server announced the close, or after a failure.
func keepAlive(ctx context.Context, c Config, r *recorder, phase time.Duration) {
	var cl *client
	defer func() {
		if cl != nil {
			cl.close()
		}
	}()
	for wait := phase; sleep(ctx, wait); wait = c.Interval {
		begun := time.Now()
		var a answer
		var err error
		cl, a, err = again(c, cl)
		if err != nil {
			r.failed(KeepAlive, err)
			continue
		}
		r.answered(KeepAlive, begun, a)
	}
}

// again does one exchange on cl, or on a new connection if cl is nil, and
// returns the connection to use next time.
func again(c Config, cl *client) (*client, answer, error) {
	var err error
	if cl == nil {
		cl, err = dial(c)
	} else {
		err = cl.renew()
	}
	if err != nil {
		return nil, answer{}, err
	}
	a, err := cl.get(c.Path, false, drain)
	if err == nil && a.closing {
		err = cl.finish()
	}
	if err != nil || a.closing {
		cl.close()
		return nil, a, err
	}
	return cl, a, nil
}

// downloads fetches the same bytes again and again, each on a new connection.
func downloads(ctx context.Context, c Config, r *recorder, phase time.Duration) {
	for ok := sleep(ctx, phase); ok; ok = sleep(ctx, c.Interval) {
		begun := time.Now()
		a, err := download(c)
		if err != nil {
			r.failed(Download, err)
			continue
		}
		r.answered(Download, begun, a)
	}
}

func download(c Config) (answer, error) {
	cl, err := dial(c)
	if err != nil {
		return answer{}, err
	}
	defer cl.close()
	return cl.get(c.DownloadPath, true, func(body io.Reader) error {
		return exactly(c.DownloadBytes)(&patient{cl: cl, r: body})
	})
}

// patient gives each read the whole timeout: a paced download may take long,
// but it must not stall.
type patient struct {
	cl *client
	r  io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.cl.renew(); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

// datagrams sends from one source port and awaits an answer to each.
func datagrams(ctx context.Context, c Config, r *recorder, phase time.Duration) {
	conn, err := net.Dial("udp", c.UDPAddr)
	if err != nil {
		r.failed(UDP, fmt.Errorf("open socket: %w", err))
		return
	}
	defer conn.Close()
	n := 0
	for wait := phase; sleep(ctx, wait); wait = c.Interval {
		n++
		begun := time.Now()
		a, err := exchange(conn, c.Timeout, n)
		if err != nil {
			r.failed(UDP, err)
			continue
		}
		r.answered(UDP, begun, a)
	}
}

// exchange sends "n" and awaits "n" or "n version"; answers to earlier
// datagrams, which have been counted as failed, are passed over.
func exchange(conn net.Conn, timeout time.Duration, n int) (answer, error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return answer{}, fmt.Errorf("set deadline: %w", err)
	}
	id := fmt.Sprintf("%08d", n)
	if _, err := io.WriteString(conn, id); err != nil {
		return answer{}, fmt.Errorf("send datagram: %w", err)
	}
	buf := make([]byte, 2048)
	for {
		m, err := conn.Read(buf)
		if err != nil {
			return answer{}, fmt.Errorf("await datagram: %w", err)
		}
		if rest, ok := strings.CutPrefix(string(buf[:m]), id); ok {
			return answer{version: strings.TrimSpace(rest)}, nil
		}
	}
}
