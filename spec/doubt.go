package spec

// DoubtfulImage is one that a power cut may have damaged. Nothing is started
// from it until it has been verified.
type DoubtfulImage struct {
	Ref    string `json:"ref"` // the name that it came under
	Digest string `json:"digest"`
	Error  string `json:"error,omitempty"` // why it couldn't be mended, one line; empty = nobody has tried yet
}
