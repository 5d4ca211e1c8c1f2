package spec

// DamageKind says what of ours was damaged.
type DamageKind string

// The kinds of damage.
const (
	DamageTable     DamageKind = "table"     // a table with chains of ours: switched off
	DamageChain     DamageKind = "chain"     // a chain of ours, or a rule in it
	DamageJump      DamageKind = "jump"      // a rule of ours in a built-in chain: missing, doubled, or behind what must come after it
	DamageSetting   DamageKind = "setting"   // a kernel setting
	DamageRoute     DamageKind = "route"     // a route to a replica or a service address
	DamageAddress   DamageKind = "address"   // the host's address in a pool
	DamageNeighbour DamageKind = "neighbour" // a permanent neighbour entry
	DamageLink      DamageKind = "link"      // the host's end of a replica's link
	DamageNamespace DamageKind = "namespace" // a replica's network namespace, or what belongs in it
)

// DamageKinds are all of them.
var DamageKinds = []DamageKind{
	DamageTable, DamageChain, DamageJump, DamageSetting, DamageRoute, DamageAddress, DamageNeighbour, DamageLink, DamageNamespace,
}

// Damage is something of ours that the kernel doesn't have as dunnage left it.
type Damage struct {
	Kind    DamageKind `json:"kind"`
	Replica string     `json:"replica,omitempty"` // whose it is; empty = the host's
	What    string     `json:"what"`              // what was found, one line for people: "IPv4: chain DUNNAGE-PUBLISHED is gone"
}
