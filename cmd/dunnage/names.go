package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

// deployed lists the services of a project (empty = of all) that run now or
// should, sorted.
func deployed(st spec.Status, project string) (services []string, found bool) {
	for _, pr := range st.Projects {
		if project != "" && pr.Name != project {
			continue
		}
		found = true
		for _, s := range pr.Services {
			services = append(services, s.Name)
		}
	}
	slices.Sort(services)
	return slices.Compact(services), found
}

// released lists the services of a project's kept releases, sorted: those that
// are gone have logs still.
func released(ctx context.Context, agent *api.Client, project string) ([]string, error) {
	releases, err := agent.Releases(ctx, project)
	if err != nil {
		return nil, err
	}
	var services []string
	for _, r := range releases {
		for _, s := range r.Project.Services {
			services = append(services, s.Name)
		}
	}
	slices.Sort(services)
	return slices.Compact(services), nil
}

// checkNames tells a project or a service that is nowhere, be it an argument or
// one of filtered, from one that has no replica now. A manifest that was never
// deployed is no mistake.
func (p *program) checkNames(ctx context.Context, c *cli.Context, agent *api.Client, st spec.Status, project string, filtered []string) error {
	services, found := deployed(st, project)
	asked := slices.DeleteFunc(c.Args().Slice(), func(name string) bool { return len(selectReplicas(st, project, []string{name})) > 0 })
	asked = append(asked, filtered...)
	if project != "" && (!found || unknown(services, asked) != "") {
		more, err := released(ctx, agent, project)
		switch {
		case errors.Is(err, spec.ErrNotFound) && p.namedProject(c) == "" && !c.Args().Present() && len(filtered) == 0:
			p.warn("%s is not deployed", project)
			return nil
		case err != nil:
			return err
		}
		services = append(services, more...)
	}
	return p.wantServices(c, project, services, asked)
}

// wantServices checks what was asked for against the services there are.
func (p *program) wantServices(c *cli.Context, project string, services, asked []string) error {
	slices.Sort(services)
	services = slices.Compact(services)
	name := unknown(services, asked)
	if name == "" {
		return nil
	}
	err := fmt.Errorf("service %s: %w%s", name, spec.ErrNotFound, whereof(project, services))
	return &exitCode{code: exitError, err: err, hint: p.fileHint(c, name)}
}

func unknown(services, asked []string) string {
	for _, s := range asked {
		if !slices.Contains(services, s) {
			return s
		}
	}
	return ""
}

// replicaOf reads the name of a replica of one of the project's services, as
// spec.LogRequest has it: "web-1", "shop-web-1" as docker has it, or the full
// one; empty if name is none. It need not exist any more: its log may.
func replicaOf(project string, services []string, name string) string {
	for _, s := range services {
		inFull, ok := strings.CutPrefix(name, project+"-"+s+"-")
		generation, number, has := strings.Cut(inFull, "-")
		switch {
		case ok && has && len(generation) == 8 && isNumber(number):
			return name
		case ok && isNumber(inFull):
			return s + "-" + inFull
		}
		if number, ok := strings.CutPrefix(name, s+"-"); ok && isNumber(number) {
			return name
		}
	}
	return ""
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 31)
	return err == nil
}

// whereof ends the sentence that something isn't there.
func whereof(project string, services []string) string {
	if project == "" {
		return "; `dunnage ps -a` lists what is deployed"
	}
	where := " in project " + project
	if len(services) > 0 {
		where += "; it has " + strings.Join(services, ", ")
	}
	return where
}

func noProject(name string) error {
	return fmt.Errorf("project %s: %w; `dunnage ps -a` lists what is deployed", name, spec.ErrNotFound)
}

// fileHint helps who wrote `logs -f FILE`, as with Compose before the verb.
func (p *program) fileHint(c *cli.Context, name string) string {
	info, err := os.Stat(p.absolute(name))
	isFile := err == nil && info.Mode().IsRegular()
	if !isFile && !strings.HasSuffix(name, ".yaml") && !strings.HasSuffix(name, ".yml") {
		return ""
	}
	return fmt.Sprintf("a manifest is named before the verb: `dunnage --file %s %s`", name, c.Command.Name)
}
