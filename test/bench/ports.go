package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"dunnage/test/lab"
	"dunnage/test/load"
)

// firstPort is the lowest of the many published ports.
const firstPort = 20000

// manyPortsFile publishes n ports of one replica.
func manyPortsFile(n int) string {
	var b strings.Builder
	b.WriteString("name: many\nservices:\n  web:\n    image: example.org/hello:v1\n    x-dunnage: {probe: {tcp: {port: 80}}, drain: 0s}\n    ports:\n")
	for i := range n {
		fmt.Fprintf(&b, "      - \"%d:80\"\n", firstPort+i)
	}
	return b.String()
}

// portLatency is the p50 of new connections, in milliseconds, with one and
// with many published ports, a figure for each pair of runs.
type portLatency struct {
	One  []float64 `json:"one_ms"`
	Many []float64 `json:"many_ms"`
}

// ratio is the median over the pairs.
func (p portLatency) ratio() float64 {
	var r []float64
	for i := range p.One {
		r = append(r, p.Many[i]/p.One[i])
	}
	return median(r)
}

// measurePorts asks two hosts in turn, one that publishes a single port and
// one that publishes many and is asked on the last of them.
func measurePorts(ctx context.Context, w world, runs int) (portLatency, error) {
	var p portLatency
	one, err := publish(ctx, w, "one", 15, 1)
	if err != nil {
		return p, err
	}
	many, err := publish(ctx, w, "many", 16, swapPorts)
	if err != nil {
		return p, err
	}
	for range runs {
		a, err := latency(w, one, firstPort)
		if err != nil {
			return p, err
		}
		b, err := latency(w, many, firstPort+swapPorts-1)
		if err != nil {
			return p, err
		}
		p.One, p.Many = append(p.One, a), append(p.Many, b)
	}
	return p, nil
}

// publish starts an agent on a host of its own, with n published ports.
func publish(ctx context.Context, w world, name string, number uint8, n int) (*lab.Lab, error) {
	a, err := w.agent(ctx, name, number)
	if err != nil {
		return nil, err
	}
	l := a.Lab
	file, err := write(l, "many.yaml", manyPortsFile(n))
	if err != nil {
		return nil, err
	}
	_, err = a.Run(ctx, nil, "deploy", "-f", file)
	return l, err
}

func latency(w world, l *lab.Lab, port int) (float64, error) {
	t, err := l.StartTraffic(w.bin("build/bin/dunnage-load"), load.Config{
		Addr:     fmt.Sprintf("%s:%d", l.Host, port),
		Rate:     200,
		Duration: 3 * time.Second,
	})
	if err != nil {
		return 0, err
	}
	rep, err := t.Wait()
	if err == nil && rep.Failed > 0 {
		err = fmt.Errorf("port %d: %v", port, rep.Reasons)
	}
	return rep.P50, err
}
