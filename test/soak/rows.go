package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// row is what a test told: soakRow of test/e2e, and which test it was.
type row struct {
	Test string `json:"test"`
	What string `json:"what"`
	Must string `json:"must"`
	Got  string `json:"got"`
	OK   bool   `json:"ok"`
}

func parseRows(b []byte) ([]row, error) {
	var rows []row
	for line := range bytes.Lines(b) {
		var r row
		if err := json.Unmarshal(line, &r); err != nil {
			return rows, fmt.Errorf("read the row %q: %w", line, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// table is the rows in Markdown.
func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| what | must | measured | |\n|---|---|---|---|\n")
	for _, r := range rows {
		verdict := "ok"
		if !r.OK {
			verdict = "**not met**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.What, r.Must, r.Got, verdict)
	}
	return b.String()
}

// wrong lists the rows that aren't what they must be.
func wrong(rows []row) []string {
	var out []string
	for _, r := range rows {
		if !r.OK {
			out = append(out, fmt.Sprintf("%s: %s, and must be %s", r.What, r.Got, r.Must))
		}
	}
	return out
}
