package spec

// RuleDiff is how the rules of two states differ.
type RuleDiff struct {
	RuleChange
	Lines []string `json:"lines,omitempty"` // "+ -t nat -A CHAIN ...", IPv4 before IPv6
}

// ImagePull is an image that a deploy would pull.
type ImagePull struct {
	Ref   string `json:"ref"`
	Size  int64  `json:"size"`            // bytes to download: what is stored isn't counted
	Known bool   `json:"known,omitempty"` // the registry has said so in time; without it Size says nothing
}
