package manifest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// Options says what Load may read. Nothing else of the machine is looked at
// but the files that these name and that the manifest names in include,
// extends, env_file, label_file, configs and secrets.
type Options struct {
	Files       []string  // as given with -f; "-" is Stdin; none = look for them
	Stdin       io.Reader // for "-"
	WorkingDir  string    // where the command runs, absolute; relative Files and EnvFiles start here
	ProjectDir  string    // as given with --project-directory, but absolute; none = the first file's
	ProjectName string    // as given with -p; goes before everything else
	EnvFiles    []string  // as given with --env-file; none = .env
	Environment []string  // KEY=VALUE of the process
	Profiles    []string  // as given with --profile; none = COMPOSE_PROFILES

	WithoutSecrets bool // a secret whose value can't be read is warned of, not refused
}

// Result is a manifest that can be deployed.
type Result struct {
	Project  spec.Project
	Secrets  map[string]spec.SecretValue // those of Project.Secrets whose origin is the manifest, by name; in nothing else of this
	Places   map[string]string           // where each of Project.Secrets is declared, or first used: "FILE:LINE:COLUMN: PATH"
	Notes    []string                    // what is easily overlooked, such as defaults that differ from Compose's; one line each
	Warnings []string                    // what is probably a mistake: unset variables, unused networks ...; one line each
	Files    []string                    // absolute paths in the order of merging, then those included and extended; "-" for standard input
	Inactive []string                    // services whose profiles aren't active, sorted
	Profiles []string                    // that services have, sorted
}

// Load reads, checks and merges the manifest. A problem in a file is an *Error;
// all of them come together as Errors. Other errors say what couldn't be read.
func Load(ctx context.Context, o Options) (res Result, err error) {
	quietly(func(q *warnings) { res, err = load(ctx, o, q) })
	return res, err
}

func load(ctx context.Context, o Options, q *warnings) (Result, error) {
	r := newReport()
	files := envFiles{Options: o, report: r, quiet: q}
	env, err := files.environment()
	if err != nil {
		return Result{}, err
	}
	sources, err := findSources(o, env, r)
	if err != nil {
		return Result{}, err
	}
	env, err = files.project(env, projectDir(o, sources))
	if err != nil {
		return Result{}, err
	}
	l := &loading{
		opts: o, env: env, dir: projectDir(o, sources), report: r, quiet: q, envFiles: files,
		included: map[string][]*layer{}, extendable: map[string][]*layer{}, unreadable: map[string]bool{}, secretPlaces: map[string]string{},
	}
	p, secrets, err := l.run(ctx, sources)
	if err != nil {
		return Result{}, err
	}
	res := Result{Project: p, Secrets: secrets, Places: l.secretPlaces, Notes: r.notes, Warnings: r.warnings, Inactive: l.inactive, Profiles: l.known}
	for _, s := range sources {
		res.Files = append(res.Files, s.path)
	}
	res.Files = append(res.Files, l.also...)
	return res, nil
}

// loading is one Load after its files have been found.
type loading struct {
	opts     Options
	env      map[string]string
	dir      string // the project's directory, absolute
	name     string // the project's
	report   *report
	quiet    *warnings
	envFiles envFiles
	layers   []*layer

	included   map[string][]*layer // by the include's files, directory and environment
	extendable map[string][]*layer // by the file of extends
	unreadable map[string]bool     // files of extends that aren't good YAML, which has been told
	files      int                 // read beyond those of Options
	also       []string            // their paths
	ports      int                 // published so far
	inactive   []string            // services whose profiles aren't active
	known      []string            // profiles that services have

	secretPlaces map[string]string // Result.Places
}

func (l *loading) run(ctx context.Context, sources []source) (spec.Project, map[string]spec.SecretValue, error) {
	broken := false // a file isn't YAML
	for _, s := range sources {
		before := len(l.report.errs)
		layers := parse(s, ofCompose, l.report)
		broken = broken || len(layers) == 0 && len(l.report.errs) > before
		l.layers = append(l.layers, layers...)
	}
	if l.report.ended {
		return spec.Project{}, nil, l.report.err()
	}
	if len(l.layers) == 0 {
		if len(l.report.errs) == 0 {
			l.fail(place{sources[0].name, 1, 1}, "", refuse("Write `services:` and at least one service", "the file is empty"))
		}
		return spec.Project{}, nil, l.report.err()
	}
	l.nameProject()
	l.env["COMPOSE_PROJECT_NAME"] = l.name
	l.walk()
	if l.report.ended || broken { // what the others lack may stand in the broken one
		return spec.Project{}, nil, l.report.err()
	}
	if !l.declaresServices() {
		return spec.Project{}, nil, l.report.err()
	}
	merged, err := l.merge(ctx)
	if err != nil {
		return spec.Project{}, nil, err
	}
	l.inactive = sorted(merged.DisabledServices)
	c := newConverter(l, merged)
	p := c.project()
	if err := l.report.err(); err != nil {
		return spec.Project{}, nil, err
	}
	return p, c.values, nil
}

func (l *loading) fail(at place, path string, p *problem) { l.report.add(at, path, p) }

// walk checks every layer against the table, with what it includes and extends.
func (l *loading) walk() {
	var all []*layer
	for _, y := range l.layers {
		y.dir, y.env = l.dir, l.env
		all = append(all, l.unfold(y, nil)...)
	}
	l.layers = distinct(all)
}

func (l *loading) walker(y *layer) *walker {
	return &walker{report: l.report, env: y.env, quiet: l.quiet, ports: &l.ports}
}

func (l *loading) declaresServices() bool {
	for _, layer := range l.layers {
		if e := layer.root.get("services"); e != nil && len(e.val.entries) > 0 {
			return true
		}
	}
	if len(l.report.errs) == 0 {
		l.fail(l.layers[0].root.at, "", refuse("Write `services:` and at least one service", "there is no service"))
	}
	return false
}

// merge lets compose-go interpolate and merge what passed the table. When
// something didn't, a failure here only follows from that.
func (l *loading) merge(ctx context.Context) (*types.Project, error) {
	details := types.ConfigDetails{WorkingDir: l.dir, Environment: maps.Clone(l.env)}
	for _, layer := range l.layers {
		content, err := encodeNode(layer.root.node())
		if err != nil {
			return nil, fmt.Errorf("prepare %s for merging: %w", layer.src.name, err)
		}
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: layer.src.name, Content: content})
	}
	p, err := loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName(l.name, true)
		o.Profiles = l.profiles()
		o.SkipExtends, o.SkipInclude = true, true
		o.SkipConsistencyCheck = true // done here, with positions
		o.SkipValidation = true       // the table is stricter than the schema, whose compilation takes 15 ms of every deploy
		o.SkipResolveEnvironment = true
		o.SkipResolveLabels = true
	})
	switch {
	case err == nil:
		return p, nil
	case len(l.report.errs) > 0:
		return nil, l.report.err()
	}
	path := strings.Split(mergePath.FindString(err.Error()), ".")
	if path[0] == "" {
		path = nil
	}
	l.fail(l.where(path...), dotted(path), refuse("", "Compose can't merge it: %s", err))
	return nil, l.report.err()
}

// mergePath is where compose-go says that a problem is.
var mergePath = regexp.MustCompile(`(services|networks|volumes|configs|secrets)\.[A-Za-z0-9_.-]*[A-Za-z0-9]`)

func encodeNode(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// where finds a key in the files as written: in the last file that has it,
// else the nearest key above.
func (l *loading) where(path ...string) place {
	best, depth := l.layers[0].root.at, 0
	for _, layer := range l.layers {
		for n := len(path); n >= max(depth, 1); n-- {
			if at, _, ok := layer.root.find(path[:n]...); ok {
				best, depth = at, n
				break
			}
		}
	}
	return best
}

// whereItem finds the item of a list, or the key of a mapping, that match
// accepts; else the list.
func (l *loading) whereItem(match func(v string, t *tree) bool, path ...string) (place, string) {
	for i := len(l.layers) - 1; i >= 0; i-- {
		_, t, ok := l.layers[i].root.find(path...)
		if !ok {
			continue
		}
		for _, item := range t.items {
			if match(l.text(item), item) {
				return item.at, index(dotted(path), item.index)
			}
		}
		for _, e := range t.entries {
			if match(e.key, e.val) {
				return e.at, join(dotted(path), e.key)
			}
		}
	}
	return l.where(path...), dotted(path)
}

// text is a scalar after interpolation, or as written where that fails.
func (l *loading) text(t *tree) string {
	v, err := l.interpolate(t)
	if err != nil {
		return t.value
	}
	return v
}

func (l *loading) interpolate(t *tree) (string, error) {
	w := &walker{report: newReport(), env: l.env, quiet: l.quiet, ports: new(int)}
	return w.interpolate(t, "")
}

func dotted(path []string) string {
	var p string
	for _, k := range path {
		p = join(p, k)
	}
	return p
}
