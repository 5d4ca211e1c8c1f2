package e2e

import (
	"encoding/json"
	"os"
	"testing"
)

// soakFile is where a soak (`make soak`) collects its rows; empty = this is no
// soak, and each test plays a slice of what it would play there.
var soakFile = os.Getenv("DUNNAGE_SOAK")

// rounds is how often a test does its thing: the slice, or all of it.
func rounds(slice, soak int) int {
	if soakFile != "" {
		return soak
	}
	return slice
}

// soakRow is one line of build/soak.json.
type soakRow struct {
	What string `json:"what"`
	Must string `json:"must"`
	Got  string `json:"got"`
	OK   bool   `json:"ok"`
}

// row tells what was measured. A row that isn't ok fails the test.
func row(t *testing.T, what, must, got string, ok bool) {
	t.Helper()
	t.Logf("%s: %s (must %s)", what, got, must)
	if !ok {
		t.Errorf("%s: %s, and must be %s", what, got, must)
	}
	if soakFile == "" {
		return
	}
	f, err := os.OpenFile(soakFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(f).Encode(soakRow{what, must, got, ok}); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
