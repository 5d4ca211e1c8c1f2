package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
)

// The names that are looked for, in order; the ones of Compose after ours.
var (
	fileNames     = []string{"dunnage.yaml", "compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	overrideNames = []string{"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"}
)

// FileNames lists the names that are looked for, for people.
func FileNames() string { return strings.Join(fileNames, ", ") }

// searchDir is where the manifest is looked for, and the .env that may name it.
func (o Options) searchDir() string { return cmp.Or(o.ProjectDir, o.WorkingDir) }

// findSources reads the files of the manifest.
func findSources(o Options, env map[string]string, r *report) ([]source, error) {
	files := o.Files
	if len(files) == 0 {
		files = fromEnvironment(env)
	}
	if len(files) == 0 {
		files = discover(o.searchDir(), r)
	}
	if len(files) == 0 {
		return nil, notFound(fmt.Sprintf("no manifest: none of %s in %s or above; name one with -f", FileNames(), o.searchDir()))
	}
	sources := make([]source, 0, len(files))
	for _, f := range files {
		s, err := open(o, f)
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func open(o Options, file string) (source, error) {
	if file == "-" {
		if o.Stdin == nil {
			return source{}, errors.New("standard input isn't available; name a file with -f")
		}
		data, err := readLimited(o.Stdin, "standard input")
		return source{name: "-", path: "-", data: data}, err
	}
	path := absolute(o.WorkingDir, file)
	data, err := readFile(path)
	return source{name: shown(o.WorkingDir, path), path: path, data: data}, err
}

// shown is the path as people look for it: relative where that is shorter.
func shown(dir, path string) string {
	if rel, err := filepath.Rel(dir, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// fromEnvironment is COMPOSE_FILE.
func fromEnvironment(env map[string]string) []string {
	list := env["COMPOSE_FILE"]
	if list == "" {
		return nil
	}
	sep := env["COMPOSE_PATH_SEPARATOR"]
	if sep == "" {
		sep = string(os.PathListSeparator)
	}
	return strings.Split(list, sep)
}

// discover looks in dir and its parents, as Compose does. dunnage.yaml stands
// alone; a Compose file takes its override file along.
func discover(dir string, r *report) []string {
	for {
		found := existing(dir, fileNames)
		if len(found) > 1 {
			r.warn("%s is used; %s beside it isn't", found[0], strings.Join(found[1:], ", "))
		}
		if len(found) > 0 {
			files := found[:1]
			if o := existing(dir, overrideNames); len(o) > 0 && filepath.Base(found[0]) != fileNames[0] {
				files = append(files, o[0])
			}
			return files
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}

func existing(dir string, names []string) []string {
	var found []string
	for _, n := range names {
		p := filepath.Join(dir, n)
		if st, err := os.Stat(p); err == nil && !st.IsDir() {
			found = append(found, p)
		}
	}
	return found
}

// projectDir is what relative paths start from: --project-directory, else the
// first file's directory.
func projectDir(o Options, sources []source) string {
	if o.ProjectDir != "" {
		return o.ProjectDir
	}
	if len(sources) == 0 || sources[0].path == "-" {
		return o.WorkingDir
	}
	return filepath.Dir(sources[0].path)
}

// nameProject decides the project's name: -p, COMPOSE_PROJECT_NAME, the last
// name: in the files, the directory. Only the directory's is made to fit, as
// Compose does: what somebody wrote down isn't replaced by something else.
func (l *loading) nameProject() {
	at, path := l.where(), ""
	from, name := "-p", l.opts.ProjectName
	if name == "" {
		from, name = "COMPOSE_PROJECT_NAME", l.env["COMPOSE_PROJECT_NAME"]
	}
	if name == "" {
		if t := l.writtenName(); t != nil {
			at, path, from = t.at, "name", "the file"
			name, _ = l.interpolate(t) // the walk tells of a failure
		}
	}
	if name == "" {
		at, path, from = l.where(), "", "the directory"
		name = loader.NormalizeProjectName(filepath.Base(l.dir))
	}
	l.name = name
	if loader.NormalizeProjectName(name) != name || !partOfID.MatchString(name) {
		hint := "Give one with -p or name:"
		if better := betterName(name); better != "" {
			hint += ", such as " + better
		}
		l.fail(at, path, refuse(hint, "%s names the project %q, but the name must be lower-case letters and digits, separated by single - or _", from, clip(name)))
		l.name = "project"
	}
}

// writtenName is the last name: in the files; nil if there is none that can be
// read.
func (l *loading) writtenName() *tree {
	for _, layer := range slices.Backward(l.layers) {
		if e := layer.root.get("name"); e != nil && shapeOf(e.val) == shapeText && e.val.value != "" {
			return e.val
		}
	}
	return nil
}

var separators = regexp.MustCompile(`[_-]*([_-])`)

// betterName is the valid name that is nearest to one that isn't; empty if
// nothing of it could be kept.
func betterName(name string) string {
	return strings.Trim(separators.ReplaceAllString(loader.NormalizeProjectName(name), "$1"), "_-")
}

// missing reports whether a file isn't there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
