package api_test

import (
	"reflect"
	"slices"
	"testing"

	"dunnage/spec"
)

// TestDisk: what the agent says of the disk arrives whole, and only a collection
// that isn't a rehearsal changes something.
func TestDisk(t *testing.T) {
	w := newWorld(t)
	f, c := w.fake, w.client
	want, err := f.DiskReport(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.DiskReport(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for i, rehearse := range []bool{true, false, false} {
		got, err := c.Collect(t.Context(), rehearse, i == 0)
		if err != nil || (len(got.Items) == 0) != (i == 2) || got.Items == nil { // an empty list is one
			t.Errorf("collect %d: %+v, %v", i, got, err)
		}
	}
	calls := slices.DeleteFunc(f.Calls(), func(call string) bool { return len(call) < 7 || call[:7] != "collect" })
	if want := []string{"collect rehearse=true all=true", "collect rehearse=false all=false", "collect rehearse=false all=false"}; !slices.Equal(calls, want) {
		t.Errorf("calls: %q", calls)
	}
	if after, err := c.DiskReport(t.Context()); err != nil || after.Collectable != (spec.DiskUse{}) {
		t.Errorf("afterwards: %+v, %v", after.Collectable, err)
	}
}
