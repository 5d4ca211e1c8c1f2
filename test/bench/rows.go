package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
)

// row is one line of the table: what must be, and what was measured.
type row struct {
	What  string            `json:"what"`
	Must  string            `json:"must"`
	Ours  string            `json:"ours"`
	Peers map[string]string `json:"peers,omitempty"`
	OK    bool              `json:"ok"`
}

// results is build/bench.json.
type results struct {
	Rows    []row          `json:"rows"`
	Raw     map[string]any `json:"raw"`     // what the rows were made of, by measurement
	Missing []string       `json:"missing"` // peers that weren't measured, and why
}

func (r *results) add(w row) { r.Rows = append(r.Rows, w) }

// ok reports whether every row is met, and there is one.
func (r *results) ok() bool {
	for _, w := range r.Rows {
		if !w.OK {
			return false
		}
	}
	return len(r.Rows) > 0
}

func (r *results) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tMUST\tOURS\tDOCKER\tPODMAN\t")
	for _, x := range r.Rows {
		verdict := "ok"
		if !x.OK {
			verdict = "NOT ok"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", x.What, x.Must, x.Ours, dash(x.Peers["docker"]), dash(x.Peers["podman"]), verdict)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	for _, m := range r.Missing {
		fmt.Fprintln(out, m)
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (r *results) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make folder for results: %w", err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
