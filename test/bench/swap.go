package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"time"

	"dunnage/netns"
	"dunnage/spec"
	"dunnage/test/lab"
)

// swapPorts is the number of published ports of the swap and latency rows.
const swapPorts = 1000

// measureSwap times swaps of published ports in a namespace of their own.
func measureSwap(ctx context.Context, w world, ports, runs int) ([]time.Duration, error) {
	l := w.lab("swap", 14)
	if err := l.Up(ctx); err != nil {
		return nil, err
	}
	out, err := lab.Output(ctx, l.OnHost(w.bin("build/bin/dunnage-bench"), "-in-namespace-swap", l.Path("run"), "-ports", fmt.Sprint(ports), "-runs", fmt.Sprint(runs))...)
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	if err := json.Unmarshal([]byte(out), &took); err != nil {
		return nil, fmt.Errorf("read swap times: %w", err)
	}
	return took, nil
}

// swapHere is run inside the namespace: it applies rules for ports of
// three replicas each, to one generation of replicas and then to the other.
// Both address families are swapped, as the agent does it.
func swapHere(ctx context.Context, runDir string, ports, runs int) error {
	n, err := netns.New(netns.Config{
		RunDir: runDir,
		Pool:   netip.MustParsePrefix("10.214.0.0/16"),
		Pool6:  netip.MustParsePrefix("fd00:d0:214::/48"),
	})
	if err != nil {
		return err
	}
	var took []time.Duration
	for i := range runs + 1 {
		r := manyPorts(byte(i%2), ports)
		begun := time.Now()
		if err := n.Apply(ctx, r); err != nil {
			return err
		}
		if i > 0 { // the first one lays the scaffold
			took = append(took, time.Since(begun))
		}
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}

// manyPorts routes published ports to the three replicas of a generation.
func manyPorts(generation byte, ports int) spec.Routing {
	subnet, subnet6 := netip.MustParsePrefix("10.214.16.0/20"), netip.MustParsePrefix("fd00:d0:214:1::/64")
	var backends []spec.Backend
	for i := range byte(3) {
		a6 := subnet6.Addr().As16()
		a6[15] = 10 + 10*generation + i
		backends = append(backends, spec.Backend{
			Replica: fmt.Sprintf("many-web-%08d-%d", generation, i+1),
			Addr:    netip.AddrFrom4([4]byte{10, 214, 16, 10 + 10*generation + i}),
			Addr6:   netip.AddrFrom16(a6),
		})
	}
	id := spec.NetworkID("many", "default")
	r := spec.Routing{
		Networks: []spec.NetworkAddressing{{ID: id, Subnet: subnet, Subnet6: subnet6}},
		Services: []spec.ServiceRoute{{
			Project: "many", Service: "web", Network: id,
			Addr: netip.AddrFrom4([4]byte{10, 214, 16, 2}), Backends: backends,
		}},
	}
	for i := range ports {
		r.Published = append(r.Published, spec.PublishedRoute{
			Project: "many", Service: "web", Port: uint16(firstPort + i), Protocol: spec.TCP, Target: 80, Backends: backends,
		})
	}
	return r
}
