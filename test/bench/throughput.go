package main

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"dunnage/test/lab"
)

// The load of the throughput row.
const (
	wrkPairs       = 5
	wrkConnections = "32"
)

// throughput is requests a second through the published port and straight to
// the replica's address, the same process on the same links, in pairs.
type throughput struct {
	Published, Direct []float64
}

func (t throughput) ratio() float64 {
	var r []float64
	for i := range t.Published {
		r = append(r, t.Published[i]/t.Direct[i])
	}
	return median(r)
}

// director is a contender whose replica can be reached without its rules.
type director interface {
	contender
	// direct opens the way for the client and returns the replica's address.
	direct(ctx context.Context) (netip.Addr, error)
}

// direct lets the client through in the chain that is the operator's: our own
// rules let nobody reach a replica from outside but by a published port.
func (d *dunnage) direct(ctx context.Context) (netip.Addr, error) {
	all, err := d.replicas(ctx, "one")
	if err != nil {
		return netip.Addr{}, err
	}
	addr := all[0].Addresses[0]
	_, err = lab.Output(ctx, d.host().OnHost("iptables", "-I", "DUNNAGE-USER", "-j", "ACCEPT")...)
	return addr, err
}

func (d *docker) direct(ctx context.Context) (netip.Addr, error) {
	out, err := lab.Output(ctx, "docker", "-H", d.url(), "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web")
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(strings.TrimSpace(out))
}

func measureThroughput(ctx context.Context, c director) (t throughput, err error) {
	if err := c.start(ctx); err != nil {
		return t, err
	}
	if err := awaitAnswer(ctx, c.host(), port); err != nil {
		return t, err
	}
	addr, err := c.direct(ctx)
	if err != nil {
		return t, err
	}
	route := []string{"ip", "route", "replace", addr.String(), "via", c.host().Host.String()}
	if _, err := lab.Output(ctx, c.host().OnClient(route...)...); err != nil {
		return t, err
	}
	for range wrkPairs {
		p, err := wrk(ctx, c.host(), fmt.Sprintf("http://%s:%s/", c.host().Host, port))
		if err != nil {
			return t, err
		}
		d, err := wrk(ctx, c.host(), fmt.Sprintf("http://%s:80/", addr))
		if err != nil {
			return t, err
		}
		t.Published, t.Direct = append(t.Published, p), append(t.Direct, d)
	}
	return t, c.remove(ctx)
}

var requestsPerSecond = regexp.MustCompile(`Requests/sec:\s*([0-9.]+)`)

func wrk(ctx context.Context, l *lab.Lab, url string) (float64, error) {
	out, err := lab.Output(ctx, l.OnClient("wrk", "-t", "2", "-c", wrkConnections, "-d", "4s", url)...)
	if err != nil {
		return 0, err
	}
	m := requestsPerSecond.FindStringSubmatch(out)
	if m == nil || strings.Contains(out, "Socket errors") {
		return 0, fmt.Errorf("wrk of %s: %s", url, out)
	}
	return strconv.ParseFloat(m[1], 64)
}

func (b *bench) throughput(ctx context.Context) error {
	if a := absent("wrk"); a != "" {
		b.results.Missing = append(b.results.Missing, "throughput wasn't measured: no wrk here")
		return nil
	}
	say("requests through a published port and straight to the replica, %d pairs", wrkPairs)
	raw, peers := map[string]throughput{}, map[string]string{}
	least := 0.85
	for _, c := range implementing[director](b) {
		t, err := measureThroughput(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name(), err)
		}
		raw[c.name()] = t
		if c.name() != b.us.name() {
			peers[c.name()] = fmt.Sprintf("%.2f x", t.ratio())
			least = max(least, t.ratio())
		}
	}
	b.results.Raw["throughput"] = raw
	ours := raw[b.us.name()]
	b.results.add(row{
		What: "throughput of a published port, by the path without NAT", Must: fmt.Sprintf(">= %.2f x", least),
		Ours: fmt.Sprintf("%.2f x, %.0f/s", ours.ratio(), median(ours.Published)), OK: ours.ratio() >= least, Peers: peers,
	})
	return nil
}
