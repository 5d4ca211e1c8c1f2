package spec

import "net/netip"

// Packet is the first packet of a connection, as explain follows it.
type Packet struct {
	Protocol Protocol       `json:"protocol"`
	Source   netip.Addr     `json:"source"` // a client's; zero = some address of the world
	To       netip.AddrPort `json:"to"`
	From     Vantage        `json:"from,omitempty"`
}

// RuleOwner says whose a rule is.
type RuleOwner string

// The owners that are told apart.
const (
	OwnerDunnage   RuleOwner = "dunnage"
	OwnerUser      RuleOwner = "user" // DUNNAGE-USER
	OwnerDocker    RuleOwner = "docker"
	OwnerUFW       RuleOwner = "ufw"
	OwnerFirewalld RuleOwner = "firewalld"
	OwnerKube      RuleOwner = "kubernetes"
	OwnerOther     RuleOwner = "other"
)

// TraceStep is one thing that a packet meets.
type TraceStep struct {
	Where   string    `json:"where"` // "iptables-nft nat PREROUTING", "route", "conntrack" ...
	Rule    string    `json:"rule,omitempty"`
	Owner   RuleOwner `json:"owner,omitempty"`
	Packets uint64    `json:"packets,omitempty"` // the rule's counter
	What    string    `json:"what"`              // what happens here, one line
	Maybe   bool      `json:"maybe,omitempty"`   // the rule matches on what isn't known of the packet
	Ends    bool      `json:"ends,omitempty"`    // the packet dies here
}

// Trace is the way of a packet.
type Trace struct {
	Packet Packet      `json:"packet"`
	Steps  []TraceStep `json:"steps"`
	Reach  []Backend   `json:"reach,omitempty"` // where it may arrive
	Dies   string      `json:"dies,omitempty"`  // why it doesn't, one line
}

// Explanation answers `dunnage explain`: the way of each address that was asked
// about, with what is known of who answers there.
type Explanation struct {
	Asked   string         `json:"asked"`
	Service string         `json:"service,omitempty"` // "project/service"
	Ways    []ExplainedWay `json:"ways"`
	Holder  string         `json:"holder,omitempty"` // a process of the host that listens on the port
	Next    []string       `json:"next,omitempty"`   // what to do
	Verdict string         `json:"verdict"`          // one line
	OK      bool           `json:"ok"`
}

// ExplainedWay is one family's or one address's way.
type ExplainedWay struct {
	Trace
	Reached  *Reach          `json:"reached,omitempty"` // what the visitor found there last
	Flows    int             `json:"flows"`             // conntrack entries for the address
	Stale    []string        `json:"stale,omitempty"`   // those that lead to no replica that is ready, one line each
	Replicas []ReplicaStatus `json:"replicas,omitempty"`
}
