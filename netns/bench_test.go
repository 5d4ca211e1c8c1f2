package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// thousand publishes n ports, each of a service of its own: the hardest case,
// because every port's chain changes. One service with a port range n:n
// changes a single chain.
func thousand(n int, b spec.Backend) spec.Routing {
	r := spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}}
	for i := range n {
		r.Published = append(r.Published, spec.PublishedRoute{
			Project: "web", Service: fmt.Sprintf("app%04d", i), Port: uint16(20000 + i), Target: 80, Protocol: spec.TCP, Backends: []spec.Backend{b},
		})
	}
	return r
}

// BenchmarkSwap1000NFT is one Apply that moves 1,000 published ports, both
// families. Goal: 100 ms.
func BenchmarkSwap1000NFT(b *testing.B) { testenv.Host(b, func() { benchmarkSwap(b, NFT) }) }

// BenchmarkSwap1000Legacy is the same with the other backend.
func BenchmarkSwap1000Legacy(b *testing.B) { testenv.Host(b, func() { benchmarkSwap(b, Legacy) }) }

// BenchmarkSwapRangeNFT swaps 1,000 ports of one service (20000-20999:80).
func BenchmarkSwapRangeNFT(b *testing.B) {
	testenv.Host(b, func() { benchmarkSwapOf(b, NFT, func(int) string { return "app" }) })
}

func benchmarkSwap(b *testing.B, backend Backend) {
	benchmarkSwapOf(b, backend, func(i int) string { return fmt.Sprintf("app%04d", i) })
}

func benchmarkSwapOf(b *testing.B, backend Backend, service func(i int) string) {
	w := newWorld(b, backend)
	routings := []spec.Routing{}
	for i := range 2 {
		m := member(network(1, false), 10+i)
		r := thousand(1000, spec.Backend{Replica: fmt.Sprint("r", i), Addr: m.Addr, Addr6: m.Addr6})
		for i := range r.Published {
			r.Published[i].Service = service(i)
		}
		routings = append(routings, r)
	}
	w.apply(routings[1])
	w.apply(routings[0])
	var all []time.Duration
	i := 1
	for b.Loop() {
		start := time.Now()
		w.apply(routings[i%2])
		all = append(all, time.Since(start))
		i++
	}
	reportMedian(b, all, "ms/swap")
}

func reportMedian(b *testing.B, all []time.Duration, unit string) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, unit)
}

// BenchmarkConnectNFT compares a new connection with 1,000 published ports
// (the last one is asked) with one. Goal: a p50 of 1.15 times at most.
func BenchmarkConnectNFT(b *testing.B) { testenv.Host(b, func() { benchmarkConnect(b, NFT) }) }

// BenchmarkConnectLegacy is the same with the other backend.
func BenchmarkConnectLegacy(b *testing.B) { testenv.Host(b, func() { benchmarkConnect(b, Legacy) }) }

func benchmarkConnect(b *testing.B, backend Backend) {
	w := newWorld(b, backend)
	app := w.start("app", member(network(1, false), 10))
	one, many := thousand(1, app.backend(0)), thousand(1000, app.backend(0))
	var few, lots []time.Duration
	for b.Loop() {
		w.apply(one)
		few = append(few, connects(b, w, 20000)...)
		w.apply(many)
		lots = append(lots, connects(b, w, 20999)...)
	}
	slices.Sort(few)
	slices.Sort(lots)
	p50, p50many := few[len(few)/2], lots[len(lots)/2]
	b.ReportMetric(float64(p50.Nanoseconds())/1000, "us/connect-1")
	b.ReportMetric(float64(p50many.Nanoseconds())/1000, "us/connect-1000")
	b.ReportMetric(float64(p50many)/float64(p50), "x/1000-to-1")
}

// connects times 300 connections to the port, all from one thread.
func connects(b *testing.B, w *world, port uint16) []time.Duration {
	b.Helper()
	var all []time.Duration
	err := w.Client.Do(func() error {
		for range 300 {
			d, err := connect(netip.AddrPortFrom(w.HostAddr, port))
			if err != nil {
				return err
			}
			all = append(all, d)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return all
}

// BenchmarkStickyNFT compares a new connection to three replicas by chance
// with one by the client's address, and a swap of each.
func BenchmarkStickyNFT(b *testing.B) { testenv.Host(b, func() { benchmarkSticky(b, NFT) }) }

// BenchmarkStickyLegacy is the same with the other backend.
func BenchmarkStickyLegacy(b *testing.B) { testenv.Host(b, func() { benchmarkSticky(b, Legacy) }) }

func benchmarkSticky(b *testing.B, backend Backend) {
	w := newWorld(b, backend)
	app := w.backends(4)
	routing := func(sticky bool, to []spec.Backend) spec.Routing {
		p := published(20000, 80, to...)[0]
		p.Sticky = sticky
		return spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}, Published: []spec.PublishedRoute{p}}
	}
	connect, swap := map[bool][]time.Duration{}, map[bool][]time.Duration{}
	for b.Loop() {
		for _, sticky := range []bool{false, true} {
			w.apply(routing(sticky, app[:3]))
			connect[sticky] = append(connect[sticky], connects(b, w, 20000)...)
			start := time.Now()
			w.apply(routing(sticky, app))
			swap[sticky] = append(swap[sticky], time.Since(start))
		}
	}
	for sticky, name := range map[bool]string{false: "random", true: "sticky"} {
		reportMedian(b, connect[sticky], "ms/connect-"+name)
		reportMedian(b, swap[sticky], "ms/swap-"+name)
	}
}

// BenchmarkAttach is one Attach and one Detach. Goal: 5 ms for Attach.
func BenchmarkAttach(b *testing.B) {
	testenv.Host(b, func() {
		w := newWorld(b, Auto)
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}})
		var attach, detach []time.Duration
		for b.Loop() {
			start := time.Now()
			err := w.net.Attach(w.ctx, spec.Endpoint{Replica: "app", Hostname: "app", Addresses: []spec.EndpointAddress{member(network(1, false), 10)}})
			attached := time.Now()
			if err != nil {
				b.Fatal(err)
			}
			if err := w.net.Detach(w.ctx, "app"); err != nil {
				b.Fatal(err)
			}
			attach, detach = append(attach, attached.Sub(start)), append(detach, time.Since(attached))
		}
		reportMedian(b, attach, "ms/attach")
		reportMedian(b, detach, "ms/detach")
	})
}
