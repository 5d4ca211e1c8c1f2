package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// names derives chain names from what they stand for and notices when two
// different things would get the same one.
type names struct {
	taken map[string]string // chain -> key
	err   error
}

// The kinds of chains that are named by a hash.
const (
	kindNetwork   = "N" // service addresses of one network
	kindService   = "S" // one service address
	kindPublished = "P" // published ports with the same backends
	kindAllowed   = "A" // their backends, behind an allow list
	kindBuckets   = "B" // clients of a sticky route whose addresses end in the same four bits
	kindHairpin   = "H" // replicas of one network that reach themselves
)

// hashed returns "DUNNAGE-<kind>-<16 hex digits>": 26 characters of the 28
// that the kernel allows. 64 bits make a collision a curiosity; it is an error
// all the same, because two services would share their backends.
func (n *names) hashed(kind string, key ...string) string {
	whole := strings.Join(key, "\x00")
	sum := sha256.Sum256([]byte(whole))
	return n.claim(Prefix+kind+"-"+hex.EncodeToString(sum[:8]), kind+"\x00"+whole)
}

func (n *names) claim(chain, key string) string {
	if n.taken == nil {
		n.taken = map[string]string{}
	}
	if other, ok := n.taken[chain]; ok && other != key && n.err == nil {
		n.err = fmt.Errorf("name chain %s: %q and %q get the same name: rename one of the services", chain, other, key)
	}
	n.taken[chain] = key
	return chain
}

// comment renders the comment match. iptables-save quotes what isn't made of
// letters, digits, "-" and "_" only; other bytes than printable ASCII, quotes
// and backslashes never get in.
func comment(text string) string {
	clean := strings.Map(cleanRune, text)
	if len(clean) > maxComment {
		clean = clean[:maxComment]
	}
	if strings.IndexFunc(clean, needsQuote) >= 0 {
		clean = `"` + clean + `"`
	}
	return "-m comment --comment " + clean
}

const maxComment = 200 // the kernel takes 255 bytes

func cleanRune(r rune) rune {
	if r < ' ' || r > '~' || r == '"' || r == '\'' || r == '\\' {
		return '?'
	}
	return r
}

func needsQuote(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}
