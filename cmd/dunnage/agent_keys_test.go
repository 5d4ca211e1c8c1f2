package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestFlagValues: the library takes the first text in backquotes of a flag's
// usage for the name of its value.
func TestFlagValues(t *testing.T) {
	name := regexp.MustCompile(`^[A-Z][][A-Z0-9:/=]*$`)
	check := func(flags []cli.Flag) {
		for _, f := range flags {
			usage := f.(cli.DocGenerationFlag).GetUsage()
			if _, rest, ok := strings.Cut(usage, "`"); ok {
				if value, _, _ := strings.Cut(rest, "`"); !name.MatchString(value) {
					t.Errorf("--%s has %q for the name of its value", f.Names()[0], value)
				}
			}
		}
	}
	app := newProgram().app()
	check(app.Flags)
	walk(app.Commands, func(c *cli.Command) { check(c.Flags) })
}

// TestKeySourceErrors: a mistake in a flag is told before anything is begun.
func TestKeySourceErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--key-source passphrse", `--key-source "passphrse": use file (the key file), file:/PATH, credential`},
		{"--former-key-source file:k", `--former-key-source "file:k": name the key file with an absolute path`},
	} {
		app := &cli.App{Flags: keyFlags(), Action: func(x *cli.Context) error {
			_, _, err := keySources(x, "/s")
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.HasSuffix(err.Error(), "refused") {
				t.Errorf("%s: %v, want %s", c.args, err, c.want)
			}
			return nil
		}}
		if err := app.Run(append([]string{"agent"}, strings.Fields(c.args)...)); err != nil {
			t.Error(err)
		}
	}
}
