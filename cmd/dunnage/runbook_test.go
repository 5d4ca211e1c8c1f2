package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

var inBackticks = regexp.MustCompile("`dunnage ([^`]+)`")

// The alerts' runbooks name commands and flags that there are.
func TestRunbooks(t *testing.T) {
	b, err := os.ReadFile("../../packaging/prometheus/dunnage.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	found := inBackticks.FindAllStringSubmatch(string(b), -1)
	if len(found) < 20 {
		t.Fatalf("only %d commands were found", len(found))
	}
	for _, m := range found {
		app := newProgram().app()
		commands, flags := app.Commands, app.Flags
		words := strings.Fields(m[1])
		for len(words) > 0 {
			i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == words[0] })
			if i < 0 {
				break
			}
			flags = append(slices.Clone(flags), commands[i].Flags...)
			commands, words = commands[i].Subcommands, words[1:]
		}
		if len(words) == len(strings.Fields(m[1])) {
			t.Errorf("`dunnage %s`: there is no such verb", m[1])
		}
		for _, w := range words {
			name := strings.TrimLeft(w, "-")
			if name != w && !slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) }) {
				t.Errorf("`dunnage %s`: there is no flag %s", m[1], w)
			}
		}
	}
}
