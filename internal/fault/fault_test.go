package fault

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A build without the tag does the effect and nothing else; one with it also
// does, as long as nobody asks for more.
func TestEffectIsDone(t *testing.T) {
	failure := errors.New("what it says")
	for _, want := range []error{nil, failure} {
		done := 0
		if err := Do("thing do", func() error { done++; return want }); err != want || done != 1 {
			t.Errorf("%v after %d times, want %v", err, done, want)
		}
	}
	Point("thing do", Before)
	if Sabotaged("thing") {
		t.Error("it lies without being asked to")
	}
}

// With the tag it dies where it is told to, and lies when asked.
func TestBuildWithFaults(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-tags", "faults", "-o", binary, "./testdata/program").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, tc := range []struct {
		at, sabotage string
		said, died   string
	}{
		{"", "", "first second", ""},
		{"first before", "", "", "first before"},
		{"first after", "", "first", "first after"},
		{"second before#1", "", "first", "second before"},
		{"#4", "", "first second", "second after"},
		{"second after#2", "", "first second", ""},
		{"", "skip first", "second", ""},
	} {
		dir := t.TempDir()
		if tc.at != "" {
			if err := os.WriteFile(filepath.Join(dir, "at"), []byte(tc.at), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(binary)
		cmd.Env = append(os.Environ(), "DUNNAGE_FAULT="+dir, "DUNNAGE_SABOTAGE="+tc.sabotage)
		out, err := cmd.CombinedOutput()
		died, _ := os.ReadFile(filepath.Join(dir, "died"))
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if said := strings.Join(strings.Fields(string(out)), " "); said != tc.said || strings.TrimSpace(string(died)) != tc.died || killed != (tc.died != "") {
			t.Errorf("at %q, sabotage %q: said %q, died %q, %v", tc.at, tc.sabotage, said, died, err)
		}
	}
}
