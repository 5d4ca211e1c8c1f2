package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

//go:generate go test -run "TestDocs|TestJSONDocs" -update .

var update = flag.Bool("update", false, "write docs/cli.md and the scripts' golden files anew")

const docsFile = "../../docs/cli.md"

// TestDocs holds docs/cli.md to the program.
func TestDocs(t *testing.T) {
	want := renderDocs(newProgram().app())
	if *update {
		if err := os.MkdirAll("../../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(docsFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/cli.md differs from the program (go generate ./cmd/dunnage writes it):\n%s", diff)
	}
}

// TestHelp: every verb explains itself with an example, and every flag has a
// text and one meaning.
func TestHelp(t *testing.T) {
	walk(newProgram().app().Commands, func(c *cli.Command) {
		if c.Usage == "" || !strings.Contains(c.Description, "Example:\n   ") {
			t.Errorf("%s has no usage or no example", c.Name)
		}
		for _, f := range c.Flags {
			d := f.(cli.DocGenerationFlag)
			if d.GetUsage() == "" {
				t.Errorf("%s --%s has no text", c.Name, f.Names()[0])
			}
		}
	})
}

// TestHelpFits: help is as wide as the terminal, and each verb's says that
// there is more than its own flags.
func TestHelpFits(t *testing.T) {
	for _, width := range []int{40, 60, 80, 100} {
		p := &program{terminal: terminal{width: width}}
		app := p.app()
		check := func(about any, name string) {
			var b strings.Builder
			p.printHelp(app)(&b, "", about)
			text, _, _ := strings.Cut(b.String(), "\nExample:")
			_, more, _ := strings.Cut(b.String(), "\nVerbs:")
			for line := range strings.Lines(text + more) {
				line = strings.TrimSuffix(line, "\n")
				if utf8.RuneCountInString(line) > width && strings.Contains(strings.TrimSpace(line), "  ") {
					t.Errorf("%s, %d columns: %q has %d", name, width, line, utf8.RuneCountInString(line))
				}
			}
			if c, ok := about.(*cli.Command); ok {
				for _, want := range []string{"Example:", "--file", "-p/--project-name", "`dunnage --help`"} {
					if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), want) {
						t.Errorf("the help of %s lacks %s:\n%s", c.Name, want, b.String())
					}
				}
			}
		}
		check(app, "dunnage")
		walk(app.Commands, func(c *cli.Command) { check(c, c.Name) })
	}
}

func walk(commands []*cli.Command, visit func(*cli.Command)) {
	for _, c := range commands {
		visit(c)
		walk(c.Subcommands, visit)
	}
}

func renderDocs(app *cli.App) []byte {
	var b bytes.Buffer
	b.WriteString("# The command line\n\nGenerated from the program: `go generate ./cmd/dunnage`.\n\n" +
		"`dunnage [flags] VERB [flags] [arguments]`. Flags stand before or after arguments; a flag of the verb goes before a global one of the same letter. " +
		"Results are on standard output, everything else on standard error. Colours need a terminal and no `NO_COLOR`.\n\n" +
		"| exit code | meaning |\n|---|---|\n| 0 | done |\n| 1 | error; what was asked for is not done |\n| 2 | the command line makes no sense |\n" +
		"| 3 | not converged, or rolled back; `doctor` found something wrong; `secret compare` found a difference |\n| 4 | no agent, or one that doesn't answer |\n| 130 | interrupted |\n| 143 | ended by SIGTERM in the midst of something that can't be interrupted, 3 s after it or by a second one (by SIGINT: 130) |\n\n`exec` ends with the command's own code.\n\n## Global flags\n\n")
	docFlags(&b, app.Flags)
	b.WriteString("## Verbs\n")
	docCommands(&b, app.Name, app.Commands)
	return b.Bytes()
}

func docCommands(b *bytes.Buffer, prefix string, commands []*cli.Command) {
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		line := prefix + " " + c.Name
		fmt.Fprintf(b, "\n### %s\n\n%s.\n", line, strings.ToUpper(c.Usage[:1])+c.Usage[1:])
		text, example, _ := strings.Cut(c.Description, "Example:\n")
		if text = strings.TrimSpace(text); text != "" {
			fmt.Fprintf(b, "\n%s\n", text)
		}
		usage := strings.TrimSpace(line + " " + c.ArgsUsage)
		fmt.Fprintf(b, "\n```\n%s\n```\n\nExample: `%s`\n\n", usage, strings.TrimSpace(example))
		docFlags(b, c.Flags)
		docCommands(b, line, c.Subcommands)
	}
}

func docFlags(b *bytes.Buffer, flags []cli.Flag) {
	if len(flags) == 0 {
		return
	}
	b.WriteString("| flag | |\n|---|---|\n")
	for _, f := range flags {
		names := f.Names()
		for i, n := range names {
			names[i] = "`--" + n + "`"
			if len(n) == 1 {
				names[i] = "`-" + n + "`"
			}
		}
		usage := strings.ReplaceAll(f.(cli.DocGenerationFlag).GetUsage(), "|", `\|`)
		if v := f.(cli.DocGenerationFlag).GetValue(); takesValue(f) && v != "" && v != "0" && v != "[]" {
			usage += " (default: `" + v + "`)"
		}
		if env := f.(cli.DocGenerationFlag).GetEnvVars(); len(env) > 0 {
			usage += " (or `" + strings.Join(env, "`, `") + "` in the environment)"
		}
		fmt.Fprintf(b, "| %s | %s |\n", strings.Join(names, ", "), usage)
	}
	b.WriteString("\n")
}
