package main

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/manifest"
	"dunnage/spec"
)

// load reads the manifest that the global flags name. Its warnings
// and notes are told by who wants them. Who sends no secrets needs none of their
// values.
func (p *program) load(c *cli.Context, secrets bool) (manifest.Result, error) {
	o := manifest.Options{
		Files:       c.StringSlice("file"),
		Stdin:       p.stdin,
		WorkingDir:  p.dir,
		ProjectName: c.String("project-name"),
		EnvFiles:    c.StringSlice("env-file"),
		Profiles:    c.StringSlice("profile"),
		Environment: p.environ,

		WithoutSecrets: !secrets,
	}
	if dir := c.String("project-directory"); dir != "" {
		o.ProjectDir = filepath.Clean(p.absolute(dir))
	}
	told := p.tellOfPipes(slices.Concat(o.Files, o.EnvFiles)...)
	m, err := manifest.Load(c.Context, o)
	told()
	if missing := new(fs.PathError); errors.Is(err, fs.ErrNotExist) && errors.As(err, &missing) {
		err = &exitCode{code: exitError, err: err, hint: nearFile(missing.Path, "give the file's path from here, or leave -f and COMPOSE_FILE out: then "+manifest.FileNames()+" is looked for here and above")}
	}
	return m, err
}

// nearFile suggests the file that was probably meant by one that isn't there,
// else says otherwise.
func nearFile(path, otherwise string) string {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return otherwise
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if near := spec.Nearest(filepath.Base(path), names); near != "" {
		return "did you mean " + filepath.Join(filepath.Dir(path), near) + "?"
	}
	return otherwise
}

// warnOf tells what is probably a mistake in a manifest.
func (p *program) warnOf(m manifest.Result) {
	for _, w := range m.Warnings {
		p.warn("%s", w)
	}
}

// noManifest reports whether Load failed only because there is no file.
func noManifest(err error) bool {
	return errors.Is(err, spec.ErrNotFound)
}

func (p *program) absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(p.dir, path)
}

// findProject returns the name of the project that a verb is about: -p's, else
// COMPOSE_PROJECT_NAME, else the manifest's; empty when there is none of them.
func (p *program) findProject(c *cli.Context) (string, error) {
	if name := p.namedProject(c); name != "" {
		return name, nil
	}
	r, err := p.load(c, false)
	switch {
	case err == nil:
		return r.Project.Name, nil
	case noManifest(err):
		return "", nil
	}
	return "", &exitCode{code: exitError, err: err, hint: cmp.Or(hintOf(err), "name the project with -p to leave the manifest aside")}
}

// namedProject is the project that somebody named; empty when it is the
// manifest's.
func (p *program) namedProject(c *cli.Context) string {
	return cmp.Or(c.String("project-name"), p.getenv("COMPOSE_PROJECT_NAME"))
}

// project is findProject for verbs that can't do without.
func (p *program) project(c *cli.Context) (string, error) {
	name, err := p.findProject(c)
	if err == nil && name == "" {
		err = &usageError{message: "which project? There is no manifest here", hint: "name it with -p, or the manifest with -f; `dunnage ps` lists all"}
	}
	return name, err
}

func (p *program) getenv(name string) string {
	for _, kv := range p.environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
