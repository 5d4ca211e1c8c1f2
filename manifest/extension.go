package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// Defaults of x-dunnage, as spec.Probe documents them.
const (
	defaultDrain    = 30 * time.Second
	defaultHold     = 10 * time.Second
	networkInterval = 5 * time.Second
	networkTimeout  = 5 * time.Second
	execInterval    = 30 * time.Second
	execTimeout     = 30 * time.Second
	defaultRetries  = 3
	acceptTimeout   = time.Minute
)

// extension is x-dunnage of a service.
type extension struct {
	drain     spec.Duration
	hold      spec.Duration
	keepWarm  spec.Duration
	allow     []netip.Prefix
	probe     *spec.Probe
	accept    *spec.Probe
	canary    *spec.Canary
	unhealthy spec.OnUnhealthy
	sticky    bool
	ramp      spec.Duration
	deadline  spec.Duration
	maxFailed int
	disk      int64
	build     string
}

// extension reads x-dunnage after merging; the walk has checked the values.
func (c *converter) extension(name string, in types.ServiceConfig) extension {
	x := extension{drain: spec.Duration(defaultDrain), hold: spec.Duration(defaultHold)}
	m, _ := in.Extensions["x-dunnage"].(map[string]any)
	if v, ok := m["drain"]; ok {
		x.drain = duration(v)
	}
	if v, ok := m["hold"]; ok {
		x.hold = duration(v)
	}
	if v, ok := m["keep_warm"]; ok {
		x.keepWarm = duration(v)
	}
	if v, ok := m["max_failed"]; ok {
		x.maxFailed = number(v)
	}
	if v, ok := m["disk"]; ok {
		x.disk, _ = parseSize(text(v))
	}
	list, _ := m["allow"].([]any)
	for _, v := range list {
		p, _ := parsePrefix(fmt.Sprint(v))
		x.allow = append(x.allow, p)
	}
	slices.SortFunc(x.allow, netip.Prefix.Compare)
	x.allow = slices.Compact(x.allow)
	if p, ok := m["probe"].(map[string]any); ok {
		x.probe = c.networkProbe(name, p)
	}
	x.accept = c.acceptProbe(name, m["accept"])
	if t, ok := m["canary"].(map[string]any); ok {
		x.canary = canary(t)
	}
	if v := text(m["on_unhealthy"]); v != "replace" {
		x.unhealthy = spec.OnUnhealthy(v)
	}
	x.sticky = text(m["sticky"]) == clientIP
	if v, ok := m["ramp"]; ok {
		x.ramp = duration(v)
	}
	if v, ok := m["progress_deadline"]; ok {
		x.deadline = duration(v)
	}
	x.build = text(m["build"])
	if _, listed := m["allow"]; listed && len(x.allow) == 0 {
		c.failAt(refuse("List addresses, or remove the key to allow all", "the list is empty"), "services", name, "x-dunnage", "allow")
	}
	return x
}

// clientIP is the one kind of stickiness.
const clientIP = "client-ip"

// text is a scalar of x-dunnage; empty if it isn't there.
func text(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

func number(v any) int {
	n, _ := strconv.Atoi(text(v)) // checked by the walk
	return n
}

func canary(m map[string]any) *spec.Canary {
	t := &spec.Canary{Replicas: number(m["replicas"]), Weight: number(m["weight"])}
	if v, ok := m["for"]; ok {
		t.For = duration(v)
	}
	return t
}

// acceptProbe reads a command, or a mapping with one.
func (c *converter) acceptProbe(name string, v any) *spec.Probe {
	p := &spec.Probe{Kind: spec.ProbeAccept, Timeout: spec.Duration(acceptTimeout)}
	if m, ok := v.(map[string]any); ok {
		v = m["command"]
		if t, ok := m["timeout"]; ok {
			p.Timeout = duration(t)
		}
	}
	switch command := v.(type) {
	case nil:
		return nil
	case []any:
		for _, word := range command {
			p.Command = append(p.Command, text(word))
		}
	default:
		if line := text(command); strings.TrimSpace(line) != "" { // a shell without a command would accept everything
			p.Command = []string{"/bin/sh", "-c", line}
		}
	}
	if len(p.Command) == 0 || strings.TrimSpace(p.Command[0]) == "" {
		c.failAt(refuse("Write the command, or remove the key", "the command is empty"), "services", name, "x-dunnage", "accept")
	}
	return p
}

func duration(v any) spec.Duration {
	d, _ := parseDuration(fmt.Sprint(v))
	return spec.Duration(d)
}

func (c *converter) networkProbe(name string, m map[string]any) *spec.Probe {
	web, isHTTP := m["http"].(map[string]any)
	raw, isTCP := m["tcp"].(map[string]any)
	if isHTTP == isTCP {
		c.failAt(refuse("Write http: {port: 80, path: /healthz} or tcp: {port: 5432}", "a probe is either http or tcp"), "services", name, "x-dunnage", "probe")
		return nil
	}
	p := networkDefaults(spec.ProbeTCP, portOf(raw))
	if isHTTP {
		p = networkDefaults(spec.ProbeHTTP, portOf(web))
		p.Path = "/"
		if v, ok := web["path"]; ok {
			p.Path = fmt.Sprint(v)
		}
	}
	for key, field := range map[string]*spec.Duration{"interval": &p.Interval, "timeout": &p.Timeout, "start_period": &p.StartPeriod} {
		if v, ok := m[key]; ok {
			*field = duration(v)
		}
	}
	if v, ok := m["retries"]; ok {
		n, _ := strconv.Atoi(fmt.Sprint(v))
		p.Retries = orDefault(n)
	}
	return &p
}

// orDefault: 0 retries mean the default, as in Docker.
func orDefault(n int) int {
	if n == 0 {
		return defaultRetries
	}
	return n
}

func portOf(m map[string]any) uint16 {
	n, _ := parsePort(fmt.Sprint(m["port"]))
	return n
}

func networkDefaults(k spec.ProbeKind, port uint16) spec.Probe {
	return spec.Probe{
		Kind: k, Port: port, Retries: defaultRetries,
		Interval: spec.Duration(networkInterval), Timeout: spec.Duration(networkTimeout),
	}
}
