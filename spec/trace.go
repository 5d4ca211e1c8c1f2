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
	Where   string    `json:"where"`            // "iptables-nft nat PREROUTING", "route", "ip rule" ...
	Number  int       `json:"number,omitempty"` // of the rule in its chain, from 1, as iptables counts
	Rule    string    `json:"rule,omitempty"`
	Owner   RuleOwner `json:"owner,omitempty"`
	Packets uint64    `json:"packets,omitempty"` // the rule's counter
	What    string    `json:"what"`              // what happens here, one line
	Maybe   bool      `json:"maybe,omitempty"`   // the rule matches on what isn't known of the packet
	Ends    bool      `json:"ends,omitempty"`    // the packet dies here
	Answer  bool      `json:"answer,omitempty"`  // it is the answer to the packet that the rule takes
}

// Fate says in one word what becomes of a packet.
type Fate string

// The fates.
const (
	FateArrives Fate = "arrives"
	FateDropped Fate = "dropped" // the client gets no answer
	FateRefused Fate = "refused" // the client is told at once
	FateHeld    Fate = "held"    // the client's next try meets other rules
	FatePartly  Fate = "partly"  // it hangs on the replica that the dice choose
	FateMaybe   Fate = "maybe"   // it hangs on what isn't known of the packet
)

// Trace is the way of a packet.
type Trace struct {
	Packet Packet      `json:"packet"`         // with the address that was chosen, where none was given
	In     string      `json:"in,omitempty"`   // link by which it comes; empty = not known, or from the host itself
	Away   bool        `json:"away,omitempty"` // the address that it is for isn't the host's
	Steps  []TraceStep `json:"steps"`
	Reach  []Arrival   `json:"reach,omitempty"` // where it may arrive, sorted
	Fate   Fate        `json:"fate"`
	Dies   string      `json:"dies,omitempty"`   // where and why, one line; empty = it arrives
	Flows  []FlowCount `json:"flows,omitempty"`  // live conntrack entries for the address
	Unseen []string    `json:"unseen,omitempty"` // what couldn't be looked at, and may decide otherwise
}

// Arrival is where a packet may come out.
type Arrival struct {
	To      netip.AddrPort `json:"to"`
	Link    string         `json:"link,omitempty"`    // by which it leaves the host
	Host    bool           `json:"host,omitempty"`    // it is for the host itself
	Replica string         `json:"replica,omitempty"` // whose address it is
	Chance  float64        `json:"chance"`            // part of the connections, 1 = all
	Maybe   bool           `json:"maybe,omitempty"`
}

// FlowCount counts conntrack's entries for an address by who answers them.
type FlowCount struct {
	Answers netip.Addr `json:"answers"`
	Count   int        `json:"count"`
}

// ExplainRequest asks what becomes of connections to Asked: a port ("8080",
// "53/udp"), an address ("tcp://198.51.100.7:8080"), a service ("web", "shop/web")
// or a replica ("web-1").
type ExplainRequest struct {
	Asked   string     `json:"asked"`
	Project string     `json:"project,omitempty"` // of the service; empty = the one that has it
	From    netip.Addr `json:"from,omitzero"`     // the client; zero = some client of the world
}

// Explanation answers `dunnage explain`: the way of each address that was asked
// about, with what is known of who answers there.
type Explanation struct {
	Asked    string          `json:"asked"`
	Services []string        `json:"services,omitempty"` // those that are concerned: "shop/web"
	Ways     []ExplainedWay  `json:"ways"`
	Replicas []ReplicaStatus `json:"replicas,omitempty"` // of the services
	Holder   string          `json:"holder,omitempty"`   // a process of the host that listens on the port
	Next     []string        `json:"next,omitempty"`     // what to do
	Verdict  string          `json:"verdict"`            // one line
	OK       bool            `json:"ok"`                 // connections arrive at replicas that are ready, or that are warm and were asked for
}

// ExplainedWay is the way of one packet, and what came of others before it.
type ExplainedWay struct {
	Trace
	Service string   `json:"service,omitempty"` // whose address or port it is
	Verdict string   `json:"verdict"`           // one line
	OK      bool     `json:"ok"`
	Reached *Reach   `json:"reached,omitempty"` // what the visitor found there last
	Stale   []string `json:"stale,omitempty"`   // connections that lead to no replica that runs, one line each
}
