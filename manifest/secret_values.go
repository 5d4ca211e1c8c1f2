package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"dunnage/spec"

	"golang.org/x/sys/unix"
)

// readSecret reads the value that the manifest brings. No message tells of it.
func (c *converter) readSecret(d spec.SecretDeclaration) {
	var value []byte
	var p *problem
	key := "file"
	switch {
	case d.Origin != spec.OriginManifest:
		return
	case d.File != "":
		value, p = readSecretFile(d.File)
	default:
		key = "environment"
		v, ok := c.envOf("secrets", d.Name)[d.Environment]
		if value = []byte(v); !ok {
			p = refuse("Set it in the environment or in .env", "the variable %s isn't set", clip(d.Environment))
		}
	}
	switch {
	case p != nil:
	case len(value) == 0:
		p = refuse("Fill it, or remove the secret", "the secret's value is empty")
	case len(value) > spec.MaxSecret:
		p = tooLong
	}
	if p != nil {
		c.noValue(p, d.Name, key)
		return
	}
	c.values[d.Name] = spec.NewSecretValue(value)
}

// noValue refuses, or only warns where nobody asks for values.
func (c *converter) noValue(p *problem, name, key string) {
	if !c.opts.WithoutSecrets {
		c.failAt(p, "secrets", name, key)
		return
	}
	c.report.warn("%s: secrets.%s.%s: %s; a deploy would be refused", c.where("secrets", name, key), name, key, p.reason)
}

var tooLong = refuse("Mount a larger file as a volume", "the secret's value is longer than %d KiB", spec.MaxSecret>>10)

// readSecretFile reads at once what the file has: buffers that grow would leave
// parts of the value behind.
func readSecretFile(name string) ([]byte, *problem) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would block
	if err != nil {
		return nil, unreadable(err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, unreadable(err)
	case !st.Mode().IsRegular():
		return nil, unreadable(fmt.Errorf("%s isn't a regular file", name))
	case st.Size() > spec.MaxSecret:
		return nil, tooLong
	}
	value := make([]byte, st.Size()+1)
	n, err := io.ReadFull(f, value)
	switch {
	case err == nil:
		return nil, unreadable(fmt.Errorf("%s has more in it than its size says", name))
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, unreadable(err)
	}
	return value[:n], nil
}

func unreadable(err error) *problem {
	return refuse("Correct or create the file", "the secret can't be read: %s", err)
}

// checkVariables looks at values that become variables: what can't be in one is
// refused, and a line end at the end is told of.
func (c *converter) checkVariables(p spec.Project) {
	for _, s := range p.Services {
		for _, x := range s.Container.Secrets {
			value, ok := c.values[x.Name]
			switch {
			case !ok || x.Env == "":
			case bytes.IndexByte(value.Reveal(), 0) >= 0:
				c.failAt(refuse("Use it as a file", "the secret %s has a zero byte in it, which no variable can have", x.Name), "services", s.Name, "x-dunnage", "secret_env", x.Env)
			case bytes.HasSuffix(value.Reveal(), []byte("\n")):
				c.report.note("%s: the variable %s has the line end with which the secret %s ends; printf writes a file without one", s.Name, x.Env, x.Name)
			}
		}
	}
}
