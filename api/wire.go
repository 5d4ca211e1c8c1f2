package api

import "strings"

// Prefix starts every path. An agent that doesn't have a path answers 404, and
// says so where the client's version is another one.
const Prefix = "/v1"

// Version is what `dunnage version` shows of a program.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go,omitempty"`
}

// userAgent is how a program of this version names itself in its requests.
func (v Version) userAgent() string {
	return product + strings.TrimSuffix(v.Version+"+"+v.Commit, "+")
}

// product starts the user agent of every version of this program.
const product = "dunnage/"

// pullRequest asks for an image.
type pullRequest struct {
	Ref string `json:"ref"`
}

// loadRoom is the answer where an archive fits.
type loadRoom struct {
	Note string `json:"note,omitempty"`
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
