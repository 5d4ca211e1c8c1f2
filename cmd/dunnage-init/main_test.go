package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/internal/testenv"
)

// TestBecomesTheProgram: at no moment does the process look as if it had ended.
func TestBecomesTheProgram(t *testing.T) {
	program := testenv.Program(t, "./cmd/dunnage-init")
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("A=b\x00"), 0o400); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		for _, args := range [][]string{{"env", file}, {"stdin"}} {
			cmd := exec.Command(program, append(args, "sleep", "1h")...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for stat := ""; !strings.Contains(stat, "(sleep)"); {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
				if stat = string(b); err != nil || strings.Contains(stat, ") Z ") {
					t.Fatalf("%s: %v %s", args[0], err, stat)
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed
		}
	}
}
