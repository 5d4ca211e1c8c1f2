package api

// Prefix starts every path. An agent that speaks another version answers 404
// with a text that says so.
const Prefix = "/v1"

// Version is what `dunnage version` shows of a program.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go,omitempty"`
}

// pullRequest asks for an image.
type pullRequest struct {
	Ref string `json:"ref"`
}

// The messages of a stream of server-sent events; data is one line of JSON.
// Every stream ends with messageEnd or messageError: one that just stops was
// cut off.
const (
	messageEvent    = "event"    // spec.Event; the SSE id is its Seq
	messageLine     = "line"     // spec.LogLine
	messageProgress = "progress" // spec.PullProgress
	messageImage    = "image"    // spec.Image: the outcome of a pull
	messageError    = "error"    // Error
	messageEnd      = "end"      // {}
)

// execProtocol is what an exec connection is upgraded to; see frames.go.
const execProtocol = "dunnage-exec/1"
