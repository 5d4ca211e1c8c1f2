package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
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
			"Where the key comes from somewhere else, the agent looks there again: a lost key file may be back. A key that is lost for good has `dunnage secret reset-key`. " +
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
		return lostChange(ctx, "the secrets were unlocked", "`dunnage doctor`", err)
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
			"nothing of what was removed or rotated away is left in it. Copies of the file that were made before are as they were, and the former key opens those.\n\n" +
			"Example:\n   dunnage secret rotate-key --full",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "full", Usage: "seal all values anew with a new key, and write the store's file anew"}},
		Action: p.withAgent(p.rotateKey),
	}
}

func (p *program) rotateKey(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := noPassphraseArg(c); err != nil {
		return err
	}
	_, before, err := agent.Secrets(ctx, "")
	if err != nil {
		return err
	}
	var passphrase spec.SecretValue
	if usesPassphrase(before) {
		if passphrase, err = p.passphrase(ctx, newPassphrase, true); err != nil {
			return err
		}
		defer passphrase.Clear()
	}
	key, err := agent.RotateKey(ctx, passphrase, c.Bool("full"), spec.Actor{})
	if err != nil {
		return lostChange(ctx, "the key was changed", "`dunnage secret audit`", err)
	}
	line := "the key is a new one, from: " + printable(key.Source)
	if c.Bool("full") {
		line += "; all values are sealed anew, and the store's file is written anew"
	}
	return p.print(line + "\n" + formerKey(before, key) + copyKey(key))
}

// formerKey says what becomes of the key that was in use.
func formerKey(before, now spec.KeyStatus) string {
	const dead = " nothing any more but copies of the store that were made before\n"
	path, file := strings.CutPrefix(before.Source, "file ")
	switch {
	case before.Source == now.Source && file:
		return "copies of the former key file open" + dead
	case before.Source == now.Source:
		return ""
	case file:
		return printable(path) + " opens" + dead + "delete it if nobody wants those, and take --former-key-source out of the agent's flags\n"
	}
	return "the former key (" + printable(before.Source) + ") opens" + dead
}

// copyKey reminds of the copy of a new key file.
func copyKey(k spec.KeyStatus) string {
	path, file := strings.CutPrefix(k.Source, "file ")
	if !file {
		return ""
	}
	return "a new copy is due: put one of " + printable(path) + " where the store and its copies aren't\n"
}

// usesPassphrase reports whether the next key comes from a passphrase.
func usesPassphrase(k spec.KeyStatus) bool {
	kind, _, _ := strings.Cut(cmp.Or(k.Next, k.Source), " ")
	return kind == "passphrase"
}

func (p *program) secretResetKeyCommand() *cli.Command {
	return &cli.Command{
		Name:  "reset-key",
		Usage: "give up all secrets whose key is lost, and begin with a new key",
		Description: "For secrets that are locked and stay so: nobody has the key's copy, or knows the passphrase. It names the secrets, asks, drops them with all their versions, " +
			"and makes a first key at the agent's --key-source; a key file that is there is never overwritten. " +
			"Releases stay, and so does what runs; what needs a secret waits until that is set anew (`dunnage secret set`), or deployed where a manifest has the value, and then gets it by itself.\n\n" +
			"A copy of the store from before it, with the lost key, should that turn up, is the only way back.\n\n" +
			"Example:\n   dunnage secret reset-key",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "yes", Usage: "don't ask"}},
		Action: p.withAgent(p.resetKey),
	}
}

func (p *program) resetKey(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := noPassphraseArg(c); err != nil {
		return err
	}
	all, key, err := agent.Secrets(ctx, "")
	if err != nil {
		return err
	}
	switch {
	case key.Locked == "":
		return &exitCode{code: exitError, err: errors.New("the secrets aren't locked, so none is given up"), hint: "`dunnage secret rotate-key` makes a new key"}
	case key.Unset:
		return &exitCode{code: exitError, err: errors.New("no key is lost: " + printable(key.Locked))}
	}
	p.warn("%s", key.Locked)
	if err := p.print(givenUp(all)); err != nil {
		return err
	}
	if !c.Bool("yes") {
		if err := p.confirm(ctx, "type yes to give them up for good"); err != nil {
			return err
		}
	}
	var passphrase spec.SecretValue
	if usesPassphrase(key) {
		if passphrase, err = p.passphrase(ctx, newPassphrase, true); err != nil {
			return err
		}
		defer passphrase.Clear()
	}
	if key, err = agent.ResetKey(ctx, passphrase, spec.Actor{}); err != nil {
		return lostChange(ctx, "the secrets were given up", "`dunnage secret ls`", err)
	}
	return p.print("gave up " + counted(len(all), "secret") + "; the first key of new ones is from: " + printable(key.Source) + "\n" + copyKey(key) +
		"`dunnage secret set NAME` sets one anew; what uses it gets it by itself\n")
}

// givenUp names what is about to be dropped.
func givenUp(all []spec.SecretStatus) string {
	if len(all) == 0 {
		return "the store has no secret that would be given up\n"
	}
	var b strings.Builder
	b.WriteString("to be given up, with all versions:\n")
	for _, s := range all {
		line := "   " + s.SecretID.String()
		if len(s.UsedBy) > 0 {
			line += "  used by " + strings.Join(s.UsedBy, ", ")
		}
		b.WriteString(printable(line) + "\n")
	}
	return b.String()
}

// confirm asks on the terminal for a yes.
func (p *program) confirm(ctx context.Context, question string) error {
	if !p.terminal.stdin {
		return &exitCode{code: exitError, err: errors.New("nothing was changed: there is no terminal to ask on"), hint: "--yes does it without asking"}
	}
	fmt.Fprintf(p.stderr, "%s: ", question)
	answer := make(chan string, 1)
	go func() { // stays when ctx ends, as askHidden's does
		line, _ := bufio.NewReader(p.stdin).ReadString('\n') // what isn't there isn't yes
		answer <- line
	}()
	select {
	case line := <-answer:
		if strings.TrimSpace(line) == "yes" {
			return nil
		}
		return &exitCode{code: exitError, err: errors.New("nothing was changed")}
	case <-ctx.Done():
		return ctx.Err()
	}
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
