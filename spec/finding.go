package spec

// Finding is one line of doctor.
type Finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"` // what to do
	Fix   string `json:"fix,omitempty"`  // what `doctor --fix` would remove; empty = nothing
}
