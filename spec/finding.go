package spec

import "strings"

// Finding is what doctor says of one thing. With --fix, what it removed is told
// in Text.
type Finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Warn  bool   `json:"warn,omitempty"` // nothing is wrong yet, and somebody should look
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"` // what to do
	Fix   string `json:"fix,omitempty"`  // what `doctor --fix` would remove; empty = nothing
}

// SplitProblem takes apart what the agent tells of a problem, "what is wrong; what
// to do". next is empty where nobody has said what to do.
func SplitProblem(problem string) (what, next string) {
	what, next, _ = strings.Cut(problem, "; ")
	return what, next
}
