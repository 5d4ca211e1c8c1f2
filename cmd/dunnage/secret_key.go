package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

const newPassphrase = "new passphrase (nothing brings a forgotten one back)"

func (p *program) unlockCommand() *cli.Command {
	return &cli.Command{
		Name:  "unlock",
		Usage: "open the secrets that are locked",
		Description: "Asks for the passphrase of an agent with `--key-source passphrase`, after each of its starts, on a terminal, and reads it from standard input elsewhere; the first time it sets it. " +
			"Where the key comes from somewhere else, the agent looks there again: a lost key file may be back. " +
			"While secrets are locked, what runs goes on, and what needs a secret waits.\n\n" +
			"Example:\n   dunnage unlock",
		Action: p.withAgent(p.unlock),
	}
}

func (p *program) unlock(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := noPassphraseArg(c); err != nil {
		return err
	}
	_, before, err := agent.Secrets(ctx, "")
	if err != nil {
		return err
	}
	if before.Locked == "" {
		return p.print("the secrets aren't locked; their key is from: " + printable(before.Source) + "\n")
	}
	what, done := "passphrase", "unlocked\n"
	if before.Unset {
		what, done = newPassphrase, "the passphrase is set, and the secrets are unlocked\n"
	}
	var passphrase spec.SecretValue
	if before.Passphrase {
		if passphrase, err = p.passphrase(ctx, what, before.Unset); err != nil {
			return err
		}
		defer passphrase.Clear()
	}
	if _, err := agent.Unlock(ctx, passphrase, spec.Actor{}); err != nil {
		return err
	}
	return p.print(done)
}

func (p *program) secretRotateKeyCommand() *cli.Command {
	return &cli.Command{
		Name:  "rotate-key",
		Usage: "change the key that seals the secrets",
		Description: "The key from outside the store is replaced by a new one: for a key file it is made, for a passphrase this asks (and reads standard input elsewhere), " +
			"for a credential it is dunnage.key.new, for a command what that prints then. Values stay sealed as they are.\n\n" +
			"With --full the key of all values is replaced too, they are sealed anew, and the store's file is written anew: " +
			"nothing of what was removed or rotated away is left in it. Copies of the file that were made before are as they were.\n\n" +
			"Example:\n   dunnage secret rotate-key --full",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "full", Usage: "seal all values anew with a new key, and write the store's file anew"}},
		Action: p.withAgent(p.rotateKey),
	}
}

func (p *program) rotateKey(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := noPassphraseArg(c); err != nil {
		return err
	}
	_, key, err := agent.Secrets(ctx, "")
	if err != nil {
		return err
	}
	var passphrase spec.SecretValue
	if usesPassphrase(key) {
		if passphrase, err = p.passphrase(ctx, newPassphrase, true); err != nil {
			return err
		}
		defer passphrase.Clear()
	}
	key, err = agent.RotateKey(ctx, passphrase, c.Bool("full"), spec.Actor{})
	if err != nil {
		return err
	}
	line := "the key is a new one, from: " + printable(key.Source)
	if c.Bool("full") {
		line += "; all values are sealed anew, and the store's file is written anew"
	}
	return p.print(line + "\n")
}

func usesPassphrase(k spec.KeyStatus) bool {
	kind, _, _ := strings.Cut(k.Source, " ")
	return kind == "passphrase"
}

func noPassphraseArg(c *cli.Context) error {
	if !c.Args().Present() {
		return nil
	}
	return &usageError{
		message: "`" + c.Command.HelpName + "` takes no argument: what stands on the command line stands in the shell's history, and everybody on the host sees it in ps",
		hint:    "it asks for a passphrase, or reads it from standard input; one that stood there is worth replacing",
	}
}

// passphrase is asked for on the terminal, or read from standard input.
func (p *program) passphrase(ctx context.Context, what string, twice bool) (value spec.SecretValue, err error) {
	if p.terminal.stdin {
		value, err = p.askValue(ctx, what, twice)
	} else {
		value, err = p.stdinValue()
	}
	if err == nil && len(value.Reveal()) == 0 {
		err = &exitCode{code: exitError, err: fmt.Errorf("the passphrase is empty"), hint: "type it on a terminal, or pipe it in"}
	}
	return value, err
}
