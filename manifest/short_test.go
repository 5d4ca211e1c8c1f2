package manifest

import (
	"fmt"
	"path"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"pgregory.net/rapid"

	"dunnage/spec"
)

// TestPortsAsCompose: the short form of a port that passes here means the same
// to compose-go, which expands it later.
func TestPortsAsCompose(t *testing.T) {
	agreed := 0
	rapid.Check(t, func(t *rapid.T) {
		port := rapid.OneOf(rapid.IntRange(0, 70_000), rapid.IntRange(1, 20))
		span := rapid.Custom(func(t *rapid.T) string {
			first := port.Draw(t, "port")
			if rapid.Bool().Draw(t, "single") {
				return fmt.Sprint(first)
			}
			return fmt.Sprintf("%d-%d", first, first+rapid.IntRange(-1, 9).Draw(t, "more"))
		})
		text := rapid.SampledFrom([]string{"", "", "127.0.0.1:", "[::1]:", "::1:", "0.0.0.0:", "1.2.3:", "host:"}).Draw(t, "ip")
		if text != "" || rapid.Bool().Draw(t, "published") {
			text += rapid.OneOf(span, rapid.Just("")).Draw(t, "host") + ":"
		}
		text += span.Draw(t, "container")
		text += rapid.SampledFrom([]string{"", "/tcp", "/UDP", "/sctp", "/x"}).Draw(t, "protocol")

		ours, err := parsePortItem(text)
		if err != nil {
			return
		}
		agreed++
		theirs, err := types.ParsePortConfig(text)
		if err != nil {
			t.Fatalf("%q: accepted here as %v, but by Compose: %v", text, ours, err)
		}
		c := &converter{loading: &loading{report: newReport()}}
		slices.SortFunc(ours, comparePorts)
		if got := c.ports("", theirs); !slices.Equal(got, ours) {
			t.Fatalf("%q: %v here, %v to Compose", text, ours, got)
		}
	})
	if agreed == 0 {
		t.Error("no port was accepted: nothing was compared")
	}
}

// TestVolumesAsCompose: the same for the short form of a volume.
func TestVolumesAsCompose(t *testing.T) {
	agreed := 0
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"data", "./a", "/a", "/a/b/", "../c", "~/d", "x", "a b", ".", "a-b_c", ""})
		text := part.Draw(t, "first")
		for range rapid.IntRange(0, 3).Draw(t, "more") {
			text += ":" + rapid.OneOf(part, rapid.SampledFrom([]string{"ro", "rw,z", "nocopy", "rshared", "cached", "bogus"})).Draw(t, "part")
		}
		ours, err := parseVolumeItem(text)
		if err != nil {
			return
		}
		agreed++
		theirs, err := format.ParseVolume(text)
		if err != nil {
			t.Fatalf("%q: accepted here, but by Compose: %v", text, err)
		}
		same := theirs.Source == ours.source && path.Clean(theirs.Target) == path.Clean(ours.target) &&
			theirs.ReadOnly == slices.Contains(ours.options, "ro")
		if !same {
			t.Fatalf("%q: %+v here, %+v to Compose", text, ours, theirs)
		}
	})
	if agreed == 0 {
		t.Error("no volume was accepted: nothing was compared")
	}
}

// TestOverlaps: who takes whose host port.
func TestOverlaps(t *testing.T) {
	port := func(text string) spec.Port {
		p, err := parsePortItem(text)
		if err != nil {
			t.Fatal(err)
		}
		return p[0]
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"80:1", "80:2", true},
		{"80:1", "81:1", false},
		{"80:1/tcp", "80:1/udp", false},
		{"80:1", "127.0.0.1:80:1", true},
		{"80:1", "[::1]:80:1", true},
		{"0.0.0.0:80:1", "127.0.0.1:80:1", true},
		{"0.0.0.0:80:1", "[::1]:80:1", false},
		{"[::]:80:1", "0.0.0.0:80:1", false},
		{"127.0.0.1:80:1", "127.0.0.2:80:1", false},
		{"1", "1", false},
		{"80-90:1", "85:1", false},
	} {
		a, b := port(c.a), port(c.b)
		if overlaps(a, b) != c.want || overlaps(b, a) != c.want {
			t.Errorf("%s and %s: want %v", c.a, c.b, c.want)
		}
	}
}
