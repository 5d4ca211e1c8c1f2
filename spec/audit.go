package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// AuditKind names what was done with a secret.
type AuditKind string

// The kinds of audit entries.
const (
	AuditSet      AuditKind = "set"
	AuditRollback AuditKind = "rollback"
	AuditRemove   AuditKind = "remove"
	AuditExpire   AuditKind = "expire" // a version that isn't kept any more
	AuditDeliver  AuditKind = "deliver"
	AuditCompare  AuditKind = "compare"
	AuditUnlock   AuditKind = "unlock"
	AuditRotate   AuditKind = "rotate-key"
	AuditReset    AuditKind = "reset-key" // a first key for a store whose key is lost
)

// AuditEntry is one entry of the audit record. Each has the hash of the one
// before it, so that none can be changed, taken out or put in unnoticed by who
// knows the last one's.
type AuditEntry struct {
	Seq     uint64    `json:"seq"` // 1 and up
	At      time.Time `json:"at"`
	Kind    AuditKind `json:"kind"`
	Secret  string    `json:"secret,omitempty"` // SecretID.String()
	Version int       `json:"version,omitempty"`
	Replica string    `json:"replica,omitempty"` // deliver
	UID     *int      `json:"uid,omitempty"`     // of the process that asked, as the kernel told; nil = the agent itself
	User    string    `json:"user,omitempty"`    // its name
	Refused string    `json:"refused,omitempty"` // why nothing was done, one line
	Detail  string    `json:"detail,omitempty"`
	Prev    string    `json:"prev"` // Hash of the entry before, 64 hex digits; empty in the first
	Hash    string    `json:"hash"` // Sum of it
}

// Sum is what Hash must be: SHA-256 over the entry's JSON with an empty Hash,
// 64 hex digits.
func (e AuditEntry) Sum() string {
	e.Hash = ""
	b, err := json.Marshal(e)
	if err != nil { // only a year of five digits could cause it
		panic(fmt.Sprintf("encode audit entry: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// After makes e the entry that follows prev, the zero entry standing before the
// first one. The time is kept as UTC, so that it reads back as it was hashed.
func (e AuditEntry) After(prev AuditEntry) AuditEntry {
	e.At = e.At.UTC()
	e.Seq, e.Prev = prev.Seq+1, prev.Hash
	e.Hash = e.Sum()
	return e
}

// AuditChain checks entries as they come, from the first on.
type AuditChain struct {
	Last AuditEntry // the newest that was found whole
}

// Check says what is wrong with the next entry: it was changed, or entries
// before it were taken out, put in or exchanged. That the newest ones are gone
// shows only by comparing Last.
func (c *AuditChain) Check(e AuditEntry) error {
	switch {
	case e.Seq > c.Last.Seq+1:
		return fmt.Errorf("audit entry %d is missing: %d follows %d", c.Last.Seq+1, e.Seq, c.Last.Seq)
	case e.Seq != c.Last.Seq+1:
		return fmt.Errorf("audit entry %d stands after entry %d", e.Seq, c.Last.Seq)
	case e.Hash != e.Sum():
		return fmt.Errorf("audit entry %d was changed: its hash is another", e.Seq)
	case e.Prev != c.Last.Hash:
		return fmt.Errorf("audit entry %d doesn't follow entry %d: one of them isn't the one that was written", e.Seq, c.Last.Seq)
	}
	c.Last = e
	return nil
}
