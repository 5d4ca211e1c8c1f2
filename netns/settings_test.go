package netns

import (
	"os"
	"slices"
	"strings"
	"testing"

	"dunnage/internal/testenv"
)

// TestLostSettings: where the former settings are damaged or gone, the agent that
// set them and the next one say so, and Remove does all else. Where the host
// forwarded before, there is nothing to lose.
func TestLostSettings(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		warned := func(when, want string) {
			t.Helper()
			all, err := w.net.Problems(w.ctx)
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(all, func(p string) bool { return !strings.Contains(p, "before dunnage") })
			if (want != "") != (len(got) > 0) || want != "" && !strings.Contains(got[0], want) {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		next := func() {
			t.Helper()
			n, err := New(w.net.cfg)
			if err != nil {
				t.Fatal(err)
			}
			n.Left()
			w.net = n
		}
		w.apply(sample())
		file := w.net.settingsFile()
		kept, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		warned("at first", "")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("{{{")
		warned("damaged", "net.ipv4.ip_forward=1")
		write(string(kept))
		warned("mended", "")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		warned("lost", file+" is gone")
		next()
		warned("lost before the start", file+" is gone")
		write("{}")
		warned("taken note of", "")
		write("{{{")
		next()
		warned("damaged before the start", "net.ipv4.ip_forward=1")

		if err := w.net.Remove(w.ctx); err != nil {
			t.Fatal(err)
		}
		if restored, err := w.net.RestoreSettings(); len(restored) > 0 || err == nil || !strings.Contains(err.Error(), "net.ipv4.ip_forward=1") {
			t.Errorf("restored %q, %v", restored, err)
		}
		if text := save(t, NFT, "iptables"); strings.Contains(text, "DUNNAGE") {
			t.Errorf("left after Remove:\n%s", text)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		next()
		w.apply(sample())
		next()
		warned("forwarding before dunnage", "")
	})
}
