package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"dunnage/secrets"
	"dunnage/spec"
)

// keyFile is the name of the key file in the state directory.
const keyFile = "secrets.key"

func keyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "key-source", Value: "file", Usage: "`SOURCE` of the key of secrets: file (see --key-file), credential or credential:NAME (systemd's; default dunnage.key), passphrase (`dunnage unlock` after each start), or command:/PROGRAM ARGUMENTS (prints it)"},
		&cli.StringFlag{Name: "former-key-source", Usage: "`SOURCE` that the key came from so far, as above or file:/PATH; `dunnage secret rotate-key` then moves it to --key-source"},
		&cli.StringFlag{Name: "key-file", Usage: "`PATH` of the key file, made on the first start (default: secrets.key in the state directory); without it no secret can be opened"},
	}
}

// keySources are --key-source and --former-key-source as package secrets takes
// them: with the path of the key file.
func keySources(c *cli.Context, stateDir string) (source, former string, err error) {
	path := filepath.Join(stateDir, keyFile)
	if c.IsSet("key-file") {
		if c.String("key-source") != "file" && c.String("former-key-source") != "file" {
			return "", "", fmt.Errorf("--key-file is for --key-source file, and that is %q", c.String("key-source"))
		}
		if path, err = filepath.Abs(c.String("key-file")); err != nil {
			return "", "", fmt.Errorf("--key-file %s: %w", c.String("key-file"), err)
		}
	}
	named := func(s string) string {
		if s == "file" {
			return "file:" + path
		}
		return s
	}
	source, former = named(c.String("key-source")), named(c.String("former-key-source"))
	if _, err := secrets.NewVault(secrets.Config{Source: source, Former: former}); err != nil { // it looks at no source yet
		return "", "", errors.New(spec.Text(err))
	}
	return source, former, nil
}
