package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/spec"
)

// verbatimFrom is the positional argument after which nothing is dunnage's any
// more: exec's second one is the command to run, with flags of its own.
var verbatimFrom = map[string]int{"exec": 2}

// arrange puts arguments into the one order that urfave/cli reads rightly:
// global flags, verb, the verb's flags, "--", positionals. The library takes a
// flag after a positional silently as an argument (`logs web -f` wouldn't
// follow).
//
// A flag belongs to the verb if the verb has it, else to the program: after
// `logs`, -f is --follow, before it --file, as in Compose.
func arrange(app *cli.App, args []string) ([]string, error) {
	a := &arranger{app: app, verbs: app.Commands}
	for len(args) > 0 {
		rest, err := a.next(args)
		if err != nil {
			return nil, err
		}
		args = rest
	}
	return a.result(), nil
}

type arranger struct {
	app         *cli.App
	verbs       []*cli.Command // that may come next
	path        []*cli.Command // verb and subcommand
	help        bool           // seen as a verb: `help ps`
	global, own []string
	positional  []string
}

// next takes one argument, or two, off args.
func (a *arranger) next(args []string) ([]string, error) {
	arg := args[0]
	switch {
	case arg == "--":
		a.positional = append(a.positional, args[1:]...)
		return nil, a.complete()
	case len(a.path) == 0 && (arg == "-v" || arg == "--version"):
		return args[1:], a.verb("version")
	case strings.HasPrefix(arg, "-") && arg != "-":
		return a.flag(args)
	case len(a.verbs) > 0:
		return args[1:], a.verb(arg)
	}
	a.positional = append(a.positional, arg)
	if n := verbatimFrom[a.leaf().Name]; n > 0 && len(a.positional) >= n {
		a.positional = append(a.positional, args[1:]...)
		return nil, nil
	}
	return args[1:], nil
}

func (a *arranger) leaf() *cli.Command { return a.path[len(a.path)-1] }

// complete checks that "--" doesn't stand where a verb should.
func (a *arranger) complete() error {
	if len(a.verbs) > 0 && len(a.positional) > 0 {
		return usagef("a verb is missing before --")
	}
	return nil
}

func (a *arranger) verb(name string) error {
	if name == "help" {
		a.help = true
		return nil
	}
	for _, c := range a.verbs {
		if c.HasName(name) {
			a.path = append(a.path, c)
			a.verbs = c.Subcommands
			return nil
		}
	}
	return &usageError{message: fmt.Sprintf("unknown verb %q%s", name, a.of()), hint: a.verbHint(name)}
}

// of names the command an error is about.
func (a *arranger) of() string {
	if len(a.path) == 0 {
		return ""
	}
	return " of `" + a.commandLine() + "`"
}

func (a *arranger) commandLine() string {
	words := []string{a.app.Name}
	for _, c := range a.path {
		words = append(words, c.Name)
	}
	return strings.Join(words, " ")
}

func verbNames(verbs []*cli.Command) (names []string) {
	for _, c := range verbs {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

// flag takes a flag and its value. A cluster of short ones ("-it") is taken
// apart.
func (a *arranger) flag(args []string) ([]string, error) {
	arg, rest := args[0], args[1:]
	if !strings.HasPrefix(arg, "--") {
		return a.short(arg[1:], rest)
	}
	name, value, has := strings.Cut(arg[2:], "=")
	f, global := a.find(name)
	if f == nil || len(name) < 2 {
		return nil, a.unknown("--" + name)
	}
	return a.take(f, global, "--"+name, value, has, rest)
}

func (a *arranger) short(letters string, rest []string) ([]string, error) {
	for letters != "" {
		name := letters[:1]
		letters = letters[1:]
		f, global := a.find(name)
		if f == nil {
			return nil, a.unknown("-" + name)
		}
		var err error
		if !takesValue(f) {
			_, err = a.take(f, global, "-"+name, "", false, nil)
		} else {
			// the rest of the letters is the value: -n5, -n=5
			value := strings.TrimPrefix(letters, "=")
			return a.take(f, global, "-"+name, value, letters != "", rest)
		}
		if err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// take notes a flag under its main name, with the value in the same word.
func (a *arranger) take(f cli.Flag, global bool, written, value string, has bool, rest []string) ([]string, error) {
	if takesValue(f) && !has {
		if len(rest) == 0 {
			return nil, usagef("%s needs a value", written)
		}
		value, rest, has = rest[0], rest[1:], true
	}
	word := "--" + f.Names()[0]
	if has {
		word += "=" + value
	}
	if global {
		a.global = append(a.global, word)
	} else {
		a.own = append(a.own, word)
	}
	return rest, nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// find looks a flag up in the verb, then in the program.
func (a *arranger) find(name string) (f cli.Flag, global bool) {
	if len(a.path) > 0 {
		for _, f := range append(slices.Clone(a.leaf().Flags), cli.HelpFlag) {
			if slices.Contains(f.Names(), name) {
				return f, false
			}
		}
	}
	for _, f := range append(slices.Clone(a.app.Flags), cli.HelpFlag) {
		if slices.Contains(f.Names(), name) {
			return f, true
		}
	}
	return nil, false
}

func (a *arranger) unknown(written string) error {
	var names []string
	flags := slices.Clone(a.app.Flags)
	if len(a.path) > 0 {
		flags = append(flags, a.leaf().Flags...)
	}
	if hint := composeFlags[written]; hint != "" {
		return &usageError{message: fmt.Sprintf("unknown flag %s%s", written, a.of()), hint: hint}
	}
	for _, f := range flags {
		for _, n := range f.Names() {
			if len(n) > 1 {
				names = append(names, "--"+n)
			}
		}
	}
	return &usageError{message: fmt.Sprintf("unknown flag %s%s", written, a.of()), hint: suggest(written, names, a.commandLine()+" --help")}
}

func (a *arranger) result() []string {
	out := slices.Clone(a.global)
	for _, c := range a.path {
		out = append(out, c.Name)
	}
	out = append(out, a.own...)
	if a.help && !slices.Contains(out, "--help") {
		out = append(out, "--help")
	}
	if len(a.positional) > 0 {
		out = append(append(out, "--"), a.positional...)
	}
	return out
}

// suggest names the nearest known word, or where to look.
func suggest(word string, known []string, help string) string {
	if near := spec.Nearest(word, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "see `" + help + "`"
}
