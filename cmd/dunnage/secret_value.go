package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"dunnage/spec"
)

// secretValue reads a value from --from-file, a terminal or standard input. On a
// terminal a new one is asked for twice.
func (p *program) secretValue(ctx context.Context, c *cli.Context, id spec.SecretID, fresh bool) (value spec.SecretValue, err error) {
	switch file := c.String("from-file"); {
	case c.IsSet("from-file") && file == "":
		return value, usagef("--from-file needs a path")
	case file != "":
		value, err = p.fileValue(file)
	case p.terminal.stdin:
		value, err = p.askValue(ctx, "value of "+id.String(), fresh)
	default:
		value, err = p.stdinValue()
	}
	if err != nil {
		return value, err
	}
	if err := value.Check(); err != nil {
		return value, &exitCode{code: exitError, err: fmt.Errorf("secret %s: %w", id, err), hint: emptyHint(value, c.String("from-file"))}
	}
	return value, nil
}

// emptyHint says what to do about an empty value.
func emptyHint(value spec.SecretValue, file string) string {
	switch {
	case len(value.Reveal()) > 0:
		return ""
	case file == "-":
		return "nothing came on standard input"
	case file != "":
		return file + " has nothing in it"
	}
	return "pipe it in, or name a file with --from-file"
}

// fileValue is every byte of a file.
func (p *program) fileValue(path string) (spec.SecretValue, error) {
	if path == "-" {
		return readValue(p.stdin)
	}
	defer p.tellOfPipes(path)()
	f, err := os.Open(p.absolute(path))
	if errors.Is(err, fs.ErrNotExist) {
		return spec.SecretValue{}, &exitCode{code: exitError, err: fmt.Errorf("no file %s here", path), hint: nearFile(p.absolute(path), "")}
	}
	if err != nil {
		return spec.SecretValue{}, fmt.Errorf("read the value: %w", err)
	}
	defer f.Close()
	return readValue(f)
}

// stdinValue is standard input without the line end of a single line: `echo` and
// `openssl rand -hex` write one that isn't meant.
func (p *program) stdinValue() (spec.SecretValue, error) {
	value, err := readValue(p.stdin)
	if err != nil {
		return value, err
	}
	b := value.Reveal()
	if bytes.IndexByte(b, '\n') == len(b)-1 && len(b) > 0 {
		b = bytes.TrimSuffix(b[:len(b)-1], []byte("\r"))
	}
	return spec.NewSecretValue(b), nil
}

// readValue reads one byte more than a value and its line end may have, so that
// too much shows.
func readValue(r io.Reader) (spec.SecretValue, error) {
	b, err := io.ReadAll(io.LimitReader(r, spec.MaxSecret+3))
	if err != nil {
		return spec.SecretValue{}, fmt.Errorf("read the value: %w", err)
	}
	return spec.NewSecretValue(b), nil
}

// askValue asks on the terminal, twice where a mistake in typing would be kept.
func (p *program) askValue(ctx context.Context, what string, twice bool) (spec.SecretValue, error) {
	value, err := p.askHidden(ctx, what)
	if err != nil || !twice {
		return value, err
	}
	again, err := p.askHidden(ctx, "once more")
	defer again.Clear()
	if err == nil && !value.Equal(again) {
		value.Clear()
		err = errors.New("the two differ; nothing was changed")
	}
	return value, err
}

// askHidden reads a line from the terminal, which doesn't show it. When ctx ends
// the terminal shows again what is typed.
func (p *program) askHidden(ctx context.Context, what string) (spec.SecretValue, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return spec.SecretValue{}, fmt.Errorf("ask on the terminal: %w", err)
	}
	fmt.Fprintf(p.stderr, "%s: ", printable(what))
	defer fmt.Fprintln(p.stderr)
	type line struct {
		b   []byte
		err error
	}
	typed := make(chan line, 1)
	go func() { // stays when ctx ends: nothing else can end a read from a terminal
		b, err := readHidden(fd)
		typed <- line{b, err}
	}()
	select {
	case l := <-typed:
		if errors.Is(l.err, io.EOF) { // Ctrl-D: who types it wants out, as with Ctrl-C
			return spec.SecretValue{}, &exitCode{code: exitInterrupted}
		}
		if l.err != nil {
			return spec.SecretValue{}, fmt.Errorf("read from the terminal: %w", l.err)
		}
		return spec.NewSecretValue(l.b), nil
	case <-ctx.Done():
		_ = term.Restore(fd, before) // nothing better can be done about it
		return spec.SecretValue{}, ctx.Err()
	}
}

// readHidden is term.ReadPassword, which waits for ever after Ctrl-D, the end of
// a terminal's input: io.EOF here.
func readHidden(fd int) ([]byte, error) {
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	quiet := *before
	quiet.Lflag = quiet.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	quiet.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return nil, err
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, before) //nolint:errcheck // nothing better can be done about it
	const longest = 4096                                // a terminal's line
	b := make([]byte, longest)
	for {
		n, err := unix.Read(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.EOF
		}
		return bytes.TrimRight(b[:n], "\r\n"), nil
	}
}

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// leastGenerated letters and digits have 95 bits. Nobody has to type them, so
// there is no reason for fewer.
const leastGenerated = 16

// generated makes a value of n letters and digits, each as likely as another.
func generated(n int) (spec.SecretValue, error) {
	switch {
	case n < leastGenerated:
		return spec.SecretValue{}, &usageError{message: fmt.Sprintf("--generate %d: a value that short can be guessed", n), hint: fmt.Sprintf("use at least %d characters, or 22 for 131 bits", leastGenerated)}
	case n > spec.MaxSecret:
		return spec.SecretValue{}, usagef("--generate %d: a value has at most %d characters", n, spec.MaxSecret)
	}
	value := make([]byte, 0, n)
	random := make([]byte, 2*n)
	defer clear(random)
	const fair = 256 - 256%len(alphanumeric) // bytes from here on would favour the first letters
	for len(value) < n {
		_, _ = rand.Read(random) // never fails
		for _, b := range random {
			if int(b) < fair && len(value) < n {
				value = append(value, alphanumeric[int(b)%len(alphanumeric)])
			}
		}
	}
	return spec.NewSecretValue(value), nil
}

// envFileValues reads a file of KEY=VALUE lines. What is wrong with a line is
// said without any of its text: it may be a value.
func (p *program) envFileValues(path string) (map[string]spec.SecretValue, error) {
	in := p.stdin
	if path != "-" {
		defer p.tellOfPipes(path)()
		f, err := os.Open(p.absolute(path))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &exitCode{code: exitError, err: fmt.Errorf("no file %s here", path), hint: nearFile(p.absolute(path), "")}
		}
		if err != nil {
			return nil, fmt.Errorf("read the values: %w", err)
		}
		defer f.Close()
		in = f
	}
	values := map[string]spec.SecretValue{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 2*spec.MaxSecret)
	for n := 1; lines.Scan(); n++ {
		name, value, err := envLine(lines.Text())
		if err == nil && name == "" {
			continue
		}
		if _, twice := values[name]; twice && err == nil {
			err = fmt.Errorf("%s is set a second time", name)
		}
		v := spec.NewSecretValue([]byte(value))
		if err == nil {
			err = v.Check()
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w; nothing was changed", path, n, err)
		}
		values[name] = v
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the values from %s: %w", path, err)
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("%s has no KEY=VALUE line", path)
	}
	return values, nil
}

// envLine reads a line; the name of one without a variable is empty.
func envLine(line string) (name, value string, err error) {
	line = strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
	if !ok {
		return "", "", errors.New("there is no = in the line")
	}
	if name = strings.TrimSpace(name); spec.CheckSecretName(name) != nil {
		return "", "", errors.New("what stands before = is no name of a secret: use letters, digits, - _ and ., the first a letter or digit")
	}
	if value = strings.TrimSpace(value); value != "" && (value[0] == '"' || value[0] == '\'') {
		if len(value) < 2 || value[len(value)-1] != value[0] {
			return "", "", fmt.Errorf("the value of %s begins with a quote that doesn't end the line; a value of several lines is set with --from-file", name)
		}
		value = value[1 : len(value)-1]
	}
	return name, value, nil
}
