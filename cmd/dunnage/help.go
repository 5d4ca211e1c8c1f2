package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// Bounds of the width that help is wrapped to; without a terminal it is the
// middle one.
const (
	leastHelp  = 40
	plainHelp  = 80
	widestHelp = 100
)

// printHelp takes the place of urfave/cli's templates, which wrap nothing and
// write out a repeatable flag twice.
func (p *program) printHelp(app *cli.App) func(io.Writer, string, any) {
	h := &helpText{width: plainHelp}
	if p.terminal.width > 0 {
		h.width = min(max(p.terminal.width, leastHelp), widestHelp)
	}
	return func(w io.Writer, _ string, about any) {
		h.text.Reset()
		if c, ok := about.(*cli.Command); ok {
			h.command(app, c)
		} else {
			h.program(app)
		}
		_, _ = io.WriteString(w, h.text.String()) // nowhere to tell of a failure
	}
}

type helpText struct {
	text  strings.Builder
	width int
}

func (h *helpText) program(app *cli.App) {
	h.paragraph(app.Name+" - "+app.Usage, 0)
	h.section("Usage")
	h.paragraph(app.UsageText, 2)
	h.section("Verbs")
	h.verbs(app.Commands)
	h.section("Flags")
	h.flags(app.Flags)
	h.text.WriteByte('\n')
	h.paragraph("Every verb explains itself: `dunnage VERB --help`.", 0)
}

func (h *helpText) command(app *cli.App, c *cli.Command) {
	h.paragraph(c.HelpName+" - "+c.Usage, 0)
	h.section("Usage")
	line := c.HelpName + " [flags] " + c.ArgsUsage
	if len(c.Subcommands) > 0 {
		line = c.HelpName + " VERB [flags] [arguments]"
	}
	h.paragraph(strings.TrimSpace(line), 2)
	text, example, _ := strings.Cut(c.Description, "Example:\n")
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if part != "" {
			h.text.WriteByte('\n')
			h.paragraph(part, 0)
		}
	}
	h.section("Example")
	h.text.WriteString("  " + strings.TrimSpace(example) + "\n") // for copying: never wrapped
	if len(c.Subcommands) > 0 {
		h.section("Verbs")
		h.verbs(c.Subcommands)
	}
	if own := withoutHelp(c.Flags); len(own) > 0 {
		h.section("Flags")
		h.flags(own)
	}
	h.text.WriteByte('\n')
	h.paragraph("Global flags: "+strings.Join(globalNames(app, c), ", ")+"; see `dunnage --help`.", 0)
}

// globalNames are the flags that every verb takes, with the letters that this
// one doesn't take for itself.
func globalNames(app *cli.App, c *cli.Command) (names []string) {
	var taken []string
	for _, f := range c.Flags {
		taken = append(taken, f.Names()...)
	}
	for _, f := range withoutHelp(app.Flags) {
		free := slices.DeleteFunc(flagNames(f), func(n string) bool { return slices.Contains(taken, strings.TrimLeft(n, "-")) })
		names = append(names, strings.Join(free, "/"))
	}
	return names
}

// withoutHelp takes out the flag that urfave/cli adds.
func withoutHelp(flags []cli.Flag) []cli.Flag {
	return slices.DeleteFunc(slices.Clone(flags), func(f cli.Flag) bool { return f.Names()[0] == "help" })
}

// flagNames are a flag's names as people write them, the letter first.
func flagNames(f cli.Flag) (names []string) {
	for _, n := range f.Names() {
		if len(n) == 1 {
			names = slices.Insert(names, 0, "-"+n)
		} else {
			names = append(names, "--"+n)
		}
	}
	return names
}

func (h *helpText) section(name string) { h.text.WriteString("\n" + name + ":\n") }

func (h *helpText) verbs(commands []*cli.Command) {
	var pairs [][2]string
	for _, c := range commands {
		if !c.Hidden {
			pairs = append(pairs, [2]string{c.Name, c.Usage})
		}
	}
	h.pairs(pairs)
}

func (h *helpText) flags(flags []cli.Flag) {
	var pairs [][2]string
	for _, f := range flags {
		d := f.(cli.DocGenerationFlag)
		name := strings.Join(flagNames(f), ", ")
		if strings.HasPrefix(name, "--") {
			name = "    " + name // below the long names of the others
		}
		usage := d.GetUsage()
		if d.TakesValue() {
			name += " " + placeholder(usage)
		}
		pairs = append(pairs, [2]string{name, strings.ReplaceAll(usage, "`", "") + defaults(d)})
	}
	h.pairs(pairs)
}

// placeholder is what stands for a flag's value: the quoted word of its text.
func placeholder(usage string) string {
	if parts := strings.Split(usage, "`"); len(parts) > 2 {
		return parts[1]
	}
	return "VALUE"
}

// defaults says what a flag is where nobody sets it.
func defaults(f cli.DocGenerationFlag) (text string) {
	if v := f.GetValue(); f.TakesValue() && v != "" && v != "0" && v != "[]" {
		text = " (default: " + v + ")"
	}
	if env := f.GetEnvVars(); len(env) > 0 {
		text += " (or $" + strings.Join(env, ", $") + ")"
	}
	return text
}

// widestName is how far a name may push the texts of a list to the right;
// below a longer one the text has a line of its own.
const widestName = 26

// pairs is a list of names with their texts in a second column.
func (h *helpText) pairs(list [][2]string) {
	column := 0
	for _, p := range list {
		if n := utf8.RuneCountInString(p[0]); n <= widestName {
			column = max(column, n)
		}
	}
	indent := 2 + column + gap
	for _, p := range list {
		lines := wrap(p[1], h.width-indent)
		if utf8.RuneCountInString(p[0]) > widestName {
			fmt.Fprintf(&h.text, "  %s\n", p[0])
		} else {
			fmt.Fprintf(&h.text, "  %-*s%s\n", column+gap, p[0], lines[0])
			lines = lines[1:]
		}
		for _, l := range lines {
			h.text.WriteString(strings.Repeat(" ", indent) + l + "\n")
		}
	}
}

func (h *helpText) paragraph(text string, indent int) {
	for _, l := range wrap(text, h.width-indent) {
		h.text.WriteString(strings.Repeat(" ", indent) + l + "\n")
	}
}

// wrap breaks text into lines of at most width, words whole; there is at least
// one line.
func wrap(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}
