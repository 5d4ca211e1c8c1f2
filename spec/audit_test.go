package spec

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func auditTrail(n int) []AuditEntry {
	var all []AuditEntry
	var last AuditEntry
	for i := range n {
		uid := 1000
		last = AuditEntry{
			At: time.Date(2026, 5, 1, 12, i, 0, 123456789, time.FixedZone("", 7200)), Kind: AuditSet,
			Secret: "db-password", Version: i + 1, UID: &uid, User: "ann",
		}.After(last)
		all = append(all, last)
	}
	return all
}

func firstFault(entries []AuditEntry) string {
	var c AuditChain
	for _, e := range entries {
		if err := c.Check(e); err != nil {
			return err.Error()
		}
	}
	return ""
}

func TestAuditChain(t *testing.T) {
	forged := AuditEntry{At: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), Kind: AuditRemove, Secret: "db-password"}
	for name, c := range map[string]struct {
		harm func([]AuditEntry) []AuditEntry
		want string
	}{
		"whole":   {func(a []AuditEntry) []AuditEntry { return a }, ""},
		"changed": {func(a []AuditEntry) []AuditEntry { a[3].User = "bob"; return a }, "audit entry 4 was changed"},
		"changed with its hash": {func(a []AuditEntry) []AuditEntry {
			a[3].User = "bob"
			a[3].Hash = a[3].Sum()
			return a
		}, "audit entry 5 doesn't follow entry 4"},
		"user id changed": {func(a []AuditEntry) []AuditEntry { a[3].UID = nil; return a }, "audit entry 4 was changed"},
		"removed":         {func(a []AuditEntry) []AuditEntry { return slices.Delete(a, 3, 4) }, "audit entry 4 is missing: 5 follows 3"},
		"first removed":   {func(a []AuditEntry) []AuditEntry { return a[1:] }, "audit entry 1 is missing: 2 follows 0"},
		"inserted":        {func(a []AuditEntry) []AuditEntry { return slices.Insert(a, 4, forged.After(a[3])) }, "audit entry 5 stands after entry 5"},
		"replaced":        {func(a []AuditEntry) []AuditEntry { a[4] = forged.After(a[3]); return a }, "audit entry 6 doesn't follow entry 5"},
		"reordered":       {func(a []AuditEntry) []AuditEntry { a[3], a[4] = a[4], a[3]; return a }, "audit entry 4 is missing: 5 follows 3"},
		"doubled":         {func(a []AuditEntry) []AuditEntry { return slices.Insert(a, 4, a[3]) }, "audit entry 4 stands after entry 4"},
	} {
		got := firstFault(c.harm(auditTrail(8)))
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// What comes back from JSON has the hash that it was written with.
func TestAuditSumSurvivesJSON(t *testing.T) {
	for _, e := range auditTrail(3) {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back AuditEntry
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if back.Sum() != e.Hash {
			t.Errorf("entry %d: %s after JSON, %s before", e.Seq, back.Sum(), e.Hash)
		}
	}
}
