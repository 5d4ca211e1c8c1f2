package netns

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestSwapUnderLoad: 200 swaps while a client connects all the time; no
// connection fails, and each is answered by a backend that was routed.
func TestSwapUnderLoadNFT(t *testing.T)    { testenv.Host(t, func() { testSwapUnderLoad(t, NFT) }) }
func TestSwapUnderLoadLegacy(t *testing.T) { testenv.Host(t, func() { testSwapUnderLoad(t, Legacy) }) }

func testSwapUnderLoad(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	one := network(1, false)
	var replicas []spec.Backend
	for i := range 4 {
		replicas = append(replicas, w.start(fmt.Sprint("app", i), member(one, 10+i)).backend(0))
	}
	routing := func(b []spec.Backend) spec.Routing {
		return spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: published(8080, 80, b...)}
	}
	w.apply(routing(replicas[:2]))
	var asked, failed atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for _, to := range []netip.Addr{w.HostAddr, w.HostAddr6} {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				asked.Add(1)
				c, err := w.Client.Dial("tcp", netip.AddrPortFrom(to, 8080).String(), 5*time.Second)
				if err == nil {
					_, err = testenv.AskOn(c)
					c.Close()
				}
				if err != nil {
					failed.Add(1)
					t.Logf("during the swaps: %v", err)
				}
				time.Sleep(2 * time.Millisecond) // bounds the load: the machine is shared
			}
		})
	}
	for i := range 200 {
		w.apply(routing([][]spec.Backend{replicas[2:], replicas[:2], replicas[1:3], {replicas[3]}}[i%4]))
	}
	close(stop)
	load.Wait()
	t.Logf("%s: %d connections, %d failed", backend, asked.Load(), failed.Load())
	if failed.Load() > 0 || asked.Load() < 100 {
		t.Errorf("%d of %d connections failed", failed.Load(), asked.Load())
	}
}

// TestTransfer: a large and a small transfer arrive byte by byte, through a
// published port and a swap in the middle.
func TestTransfer(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		a, b := w.start("a", member(one, 10)), w.start("b", member(one, 11))
		routing := func(r replica) spec.Routing {
			return spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: published(8080, 80, r.backend(0))}
		}
		for _, size := range []int64{1, 1 << 30} {
			w.apply(routing(a))
			c, err := w.Client.Dial("tcp", netip.AddrPortFrom(w.HostAddr, 8080).String(), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := testenv.AskOn(c); err != nil {
				t.Fatal(err)
			}
			if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			sent, got := sha256.New(), sha256.New()
			done := make(chan error, 1)
			go func() {
				_, err := io.CopyN(io.MultiWriter(c, sent), rand.NewChaCha8([32]byte{1}), size)
				done <- err
			}()
			half, err := io.CopyN(got, c, size/2)
			w.apply(routing(b))
			if err == nil {
				_, err = io.CopyN(got, c, size-half)
			}
			if sendErr := <-done; err != nil || sendErr != nil {
				t.Fatalf("%d bytes: %v, %v", size, err, sendErr)
			}
			c.Close()
			if string(sent.Sum(nil)) != string(got.Sum(nil)) {
				t.Errorf("%d bytes: what came back differs", size)
			}
		}
	})
}
