package main

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
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

// ways are the addresses of a contender's replica, published and direct.
type ways struct{ published, direct string }

func openWays(ctx context.Context, c director) (w ways, err error) {
	if err := c.start(ctx); err != nil {
		return w, err
	}
	if err := awaitAnswer(ctx, c.host(), port); err != nil {
		return w, err
	}
	addr, err := c.direct(ctx)
	if err != nil {
		return w, err
	}
	route := []string{"ip", "route", "replace", addr.String(), "via", c.host().Host.String()}
	if _, err := lab.Output(ctx, c.host().OnClient(route...)...); err != nil {
		return w, err
	}
	return ways{fmt.Sprintf("http://%s:%s/", c.host().Host, port), fmt.Sprintf("http://%s:80/", addr)}, nil
}

// measureThroughput plays the contenders' pairs in turn, and the two of a pair in
// changing order: the machine gets faster and slower by a tenth over minutes.
func measureThroughput(ctx context.Context, all []director) (map[string]throughput, error) {
	open := map[string]ways{}
	for _, c := range all {
		w, err := openWays(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name(), err)
		}
		open[c.name()] = w
	}
	out := map[string]throughput{}
	for i := range wrkPairs {
		for _, c := range all {
			w := open[c.name()]
			urls := []string{w.published, w.direct}
			if i%2 == 1 {
				slices.Reverse(urls)
			}
			rate := map[string]float64{}
			for _, url := range urls {
				var err error
				if rate[url], err = wrk(ctx, c.host(), url); err != nil {
					return nil, fmt.Errorf("%s: %w", c.name(), err)
				}
			}
			t := out[c.name()]
			t.Published, t.Direct = append(t.Published, rate[w.published]), append(t.Direct, rate[w.direct])
			out[c.name()] = t
		}
	}
	for _, c := range all {
		if err := c.remove(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name(), err)
		}
	}
	return out, nil
}

var requestsPerSecond = regexp.MustCompile(`Requests/sec:\s*([0-9.]+)`)

func wrk(ctx context.Context, l *lab.Lab, url string) (float64, error) {
	out, err := lab.Output(ctx, l.OnClient("wrk", "-t", "2", "-c", wrkConnections, "-d", "6s", url)...)
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
	raw, err := measureThroughput(ctx, implementing[director](b))
	if err != nil {
		return err
	}
	b.results.Raw["throughput"] = raw
	rates, ratios, least := map[string]string{}, map[string]string{}, 0.0
	for name, t := range raw {
		if name != b.us.name() {
			rates[name], ratios[name] = fmt.Sprintf("%.0f/s", median(t.Published)), fmt.Sprintf("%.2f x", t.ratio())
			least = max(least, median(t.Published))
		}
	}
	ours := raw[b.us.name()]
	b.results.add(row{
		What: "throughput of a published port", Must: fmt.Sprintf(">= %.0f/s", least),
		Ours: fmt.Sprintf("%.0f/s", median(ours.Published)), OK: median(ours.Published) >= least, Peers: rates,
	})
	b.results.add(row{
		What: "the same, by the path without NAT", Must: ">= 0.85 x",
		Ours: fmt.Sprintf("%.2f x", ours.ratio()), OK: ours.ratio() >= 0.85, Peers: ratios,
	})
	return nil
}
