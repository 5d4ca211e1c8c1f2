package spec

import (
	"net/netip"
	"reflect"
)

// Routing is everything that dunnage's nat rules are a function of. Slices are
// sorted: networks by ID, services by (project, service, network), published
// ports by (protocol, port, host IP), backends by address.
type Routing struct {
	Networks  []NetworkAddressing `json:"networks,omitempty"`
	Services  []ServiceRoute      `json:"services,omitempty"`
	Published []PublishedRoute    `json:"published,omitempty"`
}

// Equal reports whether both give the same rules, byte for byte.
func (r Routing) Equal(o Routing) bool { return reflect.DeepEqual(r, o) }

// NetworkAddressing is a network's share of the pool.
type NetworkAddressing struct {
	ID       string       `json:"id"` // NetworkID
	Subnet   netip.Prefix `json:"subnet"`
	Subnet6  netip.Prefix `json:"subnet6,omitzero"`
	Internal bool         `json:"internal,omitempty"`
}

// ServiceRoute balances a service address of one network over its backends.
type ServiceRoute struct {
	Project  string     `json:"project"`
	Service  string     `json:"service"`
	Network  string     `json:"network"` // NetworkID
	Addr     netip.Addr `json:"addr"`
	Addr6    netip.Addr `json:"addr6,omitzero"`
	Sticky   bool       `json:"sticky,omitempty"` // a client's address stays with one backend
	Backends []Backend  `json:"backends,omitempty"`
	Absent   Absent     `json:"absent,omitempty"`
}

// PublishedRoute balances a host port over its backends.
type PublishedRoute struct {
	Project  string         `json:"project"`
	Service  string         `json:"service"`
	HostIP   netip.Addr     `json:"host_ip,omitzero"` // zero = every address of the host
	Port     uint16         `json:"port"`
	Protocol Protocol       `json:"protocol"`
	Target   uint16         `json:"target"`
	Allow    []netip.Prefix `json:"allow,omitempty"`
	Sticky   bool           `json:"sticky,omitempty"` // a client's address stays with one backend
	Backends []Backend      `json:"backends,omitempty"`
	Absent   Absent         `json:"absent,omitempty"`
}

// Backend is a replica that takes connections.
type Backend struct {
	Replica string     `json:"replica"` // ReplicaKey.ID
	Addr    netip.Addr `json:"addr"`
	Addr6   netip.Addr `json:"addr6,omitzero"`
	Port    uint16     `json:"port,omitempty"`   // of a published route, where it isn't the Target: a replica of the release before; 0 = there
	Weight  int        `json:"weight,omitempty"` // its part of the sum of all weights; 0 = 1
}

// Absent says what happens to connections while a route has no backend.
type Absent string

// What a route without backends does.
const (
	Refuse Absent = ""     // reset at once
	Hold   Absent = "hold" // SYNs dropped: their retry meets the next rules
)
