package spec

// DoubtfulImage is one that a power cut may have damaged. Nothing is started
// from it until it has been verified. One without name and digest stands for all
// images: which of them came lately isn't known yet.
type DoubtfulImage struct {
	Ref    string `json:"ref"` // the name that it came under; its digest where it has lost that
	Digest string `json:"digest"`
	Error  string `json:"error,omitempty"` // why it couldn't be mended, one line; empty = nobody has tried yet
}
