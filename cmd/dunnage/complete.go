package main

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/manifest"
	"dunnage/spec"
)

// completeTimeout bounds what a Tab waits for.
const completeTimeout = time.Second

// completeCommand is what the completion scripts call: it prints, one a line,
// what could stand in place of the last word. No candidates means a file.
func (p *program) completeCommand() *cli.Command {
	return &cli.Command{
		Name:        "__complete",
		Hidden:      true,
		Usage:       "print candidates for the last word of a command line",
		ArgsUsage:   "-- WORD...",
		Description: "Called by the completion scripts.\n\nExample:\n   dunnage __complete -- logs w",
		Action: func(c *cli.Context) error {
			words := c.Args().Slice()
			if len(words) == 0 {
				words = []string{""}
			}
			last := words[len(words)-1]
			for _, candidate := range p.candidates(c, words[:len(words)-1], last) {
				if strings.HasPrefix(candidate, last) {
					if err := p.print(candidate + "\n"); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

// candidates reads the words before the last as arrange does.
func (p *program) candidates(c *cli.Context, before []string, last string) []string {
	a := &arranger{app: c.App, verbs: c.App.Commands}
	for len(before) > 0 {
		if f := a.pending(before); f != nil {
			return p.values(c, a, f, last)
		}
		rest, err := a.next(before)
		if err != nil {
			return nil
		}
		before = rest
	}
	switch {
	case strings.HasPrefix(last, "-"):
		return a.flagNames()
	case len(a.verbs) > 0:
		return verbNames(a.verbs)
	}
	return p.arguments(c, a)
}

// pending is the flag that args consist of and that still lacks its value.
func (a *arranger) pending(args []string) cli.Flag {
	if len(args) != 1 || strings.Contains(args[0], "=") {
		return nil
	}
	name := strings.TrimLeft(args[0], "-")
	if name == args[0] || name == "" {
		return nil
	}
	if f, _ := a.find(name); f != nil && takesValue(f) {
		return f
	}
	return nil
}

func (a *arranger) flagNames() (names []string) {
	flags := slices.Clone(a.app.Flags)
	if len(a.path) > 0 {
		flags = append(slices.Clone(a.leaf().Flags), flags...)
	}
	for _, f := range flags {
		names = append(names, "--"+f.Names()[0])
	}
	return append(names, "--help")
}

// values completes a flag's value: projects, filters and profiles are known,
// the rest are files.
func (p *program) values(c *cli.Context, a *arranger, f cli.Flag, last string) (names []string) {
	switch f.Names()[0] {
	case "project-name":
		for _, pr := range p.completionStatus(c, a).Projects {
			names = append(names, pr.Name)
		}
	case "profile":
		names = p.completionManifest(c, a).Profiles
	case "filter":
		return p.filterValues(c, a, last)
	}
	return names
}

// filterValues completes KEY and then VALUE of ps --filter KEY=VALUE.
func (p *program) filterValues(c *cli.Context, a *arranger, last string) (words []string) {
	key, _, has := strings.Cut(last, "=")
	if !has {
		return []string{"health=", "label=", "project=", "service=", "state="}
	}
	values := closed[key]
	switch key {
	case "project":
		for _, pr := range p.completionStatus(c, a).Projects {
			values = append(values, pr.Name)
		}
	case "service":
		values = p.serviceNames(c, a)
	}
	for _, v := range values {
		words = append(words, key+"="+v)
	}
	return words
}

// arguments completes what stands after the verb.
func (p *program) arguments(c *cli.Context, a *arranger) (names []string) {
	if a.path[0].Name == "secret" {
		return p.secretNames(c, a)
	}
	switch a.leaf().Name {
	case "scale":
		for _, name := range p.serviceNames(c, a) {
			names = append(names, name+"=")
		}
	case "explain":
		if len(a.positional) == 0 {
			names = append(p.serviceNames(c, a), p.publishedPorts(c, a)...)
		}
	case "logs", "ps", "stats", "stop", "start", "restart":
		names = p.serviceNames(c, a)
	case "exec":
		if len(a.positional) == 0 {
			names = p.serviceNames(c, a)
		}
	case "rollback":
		if len(a.positional) == 0 {
			names = p.releaseNumbers(c, a)
		}
	case "receipt":
		if len(a.positional) == 0 {
			names = p.receiptReleases(c, a)
		}
	case "rm": // of image
		names = p.imageNames(c, a)
	}
	return names
}

// serviceNames lists the services of the project that is named, else of all.
func (p *program) serviceNames(c *cli.Context, a *arranger) (names []string) {
	name := a.globalValue("project-name")
	for _, pr := range p.completionStatus(c, a).Projects {
		if name != "" && pr.Name != name {
			continue
		}
		for _, s := range pr.Services {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// publishedPorts lists the ports of the project that is named, else of all, as
// explain takes them.
func (p *program) publishedPorts(c *cli.Context, a *arranger) (ports []string) {
	name := a.globalValue("project-name")
	for _, pr := range p.completionStatus(c, a).Projects {
		if name != "" && pr.Name != name {
			continue
		}
		for _, s := range pr.Services {
			for _, port := range s.Ports {
				word := strconv.Itoa(int(port.Published))
				if port.Protocol != spec.TCP {
					word += "/" + string(port.Protocol)
				}
				ports = append(ports, word)
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// releaseNumbers lists the releases that the project could go back to, the
// newest first.
func (p *program) releaseNumbers(c *cli.Context, a *arranger) (numbers []string) {
	project := p.completionProject(c, a)
	p.askForCompletion(c, a, func(ctx context.Context, agent *api.Client) error {
		releases, err := agent.Releases(ctx, project)
		for _, r := range releases {
			if r.State != spec.ReleaseCurrent {
				numbers = append(numbers, strconv.Itoa(r.Number))
			}
		}
		return err
	})
	return numbers
}

// receiptReleases lists the releases that have receipts, the newest first.
func (p *program) receiptReleases(c *cli.Context, a *arranger) (numbers []string) {
	project := p.completionProject(c, a)
	p.askForCompletion(c, a, func(ctx context.Context, agent *api.Client) error {
		receipts, err := agent.Receipts(ctx, project)
		for _, r := range receipts {
			if n := strconv.Itoa(r.Release); !slices.Contains(numbers, n) {
				numbers = append(numbers, n)
			}
		}
		return err
	})
	return numbers
}

// completionProject is the project that the words mean.
func (p *program) completionProject(c *cli.Context, a *arranger) string {
	if name := cmp.Or(a.globalValue("project-name"), p.getenv("COMPOSE_PROJECT_NAME")); name != "" {
		return name
	}
	return p.completionManifest(c, a).Project.Name
}

// imageNames lists the stored images that aren't named yet.
func (p *program) imageNames(c *cli.Context, a *arranger) (names []string) {
	p.askForCompletion(c, a, func(ctx context.Context, agent *api.Client) error {
		images, err := agent.Images(ctx)
		for _, i := range images {
			if !slices.Contains(a.positional, i.Ref) {
				names = append(names, i.Ref)
			}
		}
		return err
	})
	return names
}

// completionManifest reads the manifest that the words name, with all of its
// profiles; zero where there is none or something is wrong with it.
func (p *program) completionManifest(c *cli.Context, a *arranger) manifest.Result {
	o := manifest.Options{
		Files: a.globalValues("file"), Stdin: strings.NewReader(""), WorkingDir: p.dir, EnvFiles: a.globalValues("env-file"),
		Profiles: []string{"*"}, Environment: p.environ, WithoutSecrets: true,
	}
	if dir := a.globalValue("project-directory"); dir != "" {
		o.ProjectDir = filepath.Clean(p.absolute(dir))
	}
	r, err := manifest.Load(c.Context, o)
	if err != nil {
		return manifest.Result{} // a Tab has nowhere to say why
	}
	return r
}

func (a *arranger) globalValue(flag string) string {
	if values := a.globalValues(flag); len(values) > 0 {
		return values[0]
	}
	return ""
}

func (a *arranger) globalValues(flag string) (values []string) {
	for _, w := range a.global {
		if v, ok := strings.CutPrefix(w, "--"+flag+"="); ok {
			values = append(values, v)
		}
	}
	return values
}

// secretNames completes what stands after a verb of secrets.
func (p *program) secretNames(c *cli.Context, a *arranger) (names []string) {
	takes := map[string]int{"set": 1, "rollback": 1, "compare": 1, "rm": -1}[a.leaf().Name]
	if takes >= 0 && len(a.positional) >= takes {
		return nil
	}
	project := a.globalValue("project-name")
	p.askForCompletion(c, a, func(ctx context.Context, agent *api.Client) error {
		secrets, _, err := agent.Secrets(ctx, project)
		for _, s := range secrets {
			if project != "" {
				s.Project = "" // -p says it
			}
			names = append(names, s.SecretID.String())
		}
		return err
	})
	return names
}

func (p *program) completionStatus(c *cli.Context, a *arranger) (st spec.Status) {
	p.askForCompletion(c, a, func(ctx context.Context, agent *api.Client) (err error) {
		st, err = agent.Status(ctx)
		return err
	})
	return st
}

// askForCompletion asks the agent; without an answer there is nothing to offer.
func (p *program) askForCompletion(c *cli.Context, a *arranger, ask func(context.Context, *api.Client) error) {
	host := a.globalValue("host")
	if host == "" {
		host = c.String("host")
	}
	agent, err := p.connect(host)
	if err != nil {
		return
	}
	defer agent.Close()
	ctx, cancel := context.WithTimeout(c.Context, completeTimeout)
	defer cancel()
	_ = ask(ctx, agent) // a Tab has nowhere to say why
}
