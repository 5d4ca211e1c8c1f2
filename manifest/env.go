package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
)

// envFiles reads the files with variables for the manifest.
type envFiles struct {
	Options
	report *report
	quiet  *warnings
}

// environment is the process' own plus the .env where the search starts, or
// the files of --env-file: what COMPOSE_FILE and its kin are read from.
func (f envFiles) environment() (map[string]string, error) {
	env := map[string]string{}
	for _, kv := range f.Environment {
		k, v, _ := strings.Cut(kv, "=")
		if k != "" {
			env[k] = v
		}
	}
	if len(f.EnvFiles) == 0 {
		return f.project(env, f.searchDir())
	}
	vars := map[string]string{}
	for _, name := range f.EnvFiles {
		if err := f.add(vars, absolute(f.WorkingDir, name), env, true); err != nil {
			return nil, err
		}
	}
	return under(env, vars), nil
}

// under adds what env doesn't have.
func under(env, vars map[string]string) map[string]string {
	for k, v := range vars {
		if _, set := env[k]; !set {
			env[k] = v
		}
	}
	return env
}

// project adds the .env of dir, which gives way to what is set.
func (f envFiles) project(env map[string]string, dir string) (map[string]string, error) {
	if off, _ := strconv.ParseBool(env["COMPOSE_DISABLE_ENV_FILE"]); off || len(f.EnvFiles) > 0 {
		return env, nil
	}
	vars := map[string]string{}
	err := f.add(vars, filepath.Join(dir, ".env"), env, false)
	return under(env, vars), err
}

// add adds a file in Compose's env-file syntax to vars, over what is there. Its
// values may use env and vars.
func (f envFiles) add(vars map[string]string, path string, env map[string]string, required bool) error {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read env file: %w", err)
	}
	read, err := f.parse(path, string(data), func(k string) (string, bool) {
		if v, ok := env[k]; ok {
			return v, true
		}
		v, ok := vars[k]
		return v, ok
	})
	if err != nil {
		return fmt.Errorf("read env file %s: %w", path, err)
	}
	maps.Copy(vars, read)
	return nil
}

// read reads a file of KEY=VALUE lines that the manifest names.
func (f envFiles) read(path, format string, lookup dotenv.LookupFn) (map[string]string, error) {
	data, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	var vars map[string]string
	if format == "raw" {
		vars, err = parseRawEnv(string(data), lookup)
	} else {
		vars, err = f.parse(path, string(data), lookup)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return vars, nil
}

// unset is a variable that an env file uses and nobody sets.
type unset struct {
	name string
	line int
}

// parse reads Compose's env-file syntax. What it warns of is told once a place,
// however often a file is read.
func (f envFiles) parse(path, data string, lookup dotenv.LookupFn) (map[string]string, error) {
	data = strings.TrimPrefix(data, "\ufeff")
	var s substitutions
	for i, line := range strings.Split(data, "\n") {
		if p := s.add(line); p != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, p)
		}
	}
	f.quiet.drain()
	vars, err := dotenv.ParseWithLookup(strings.NewReader(data), lookup)
	for _, u := range whereUnset(data, f.quiet.drain()) {
		f.report.warn("%s:%d: the variable %q is not set and becomes empty; write $$ or single quotes where the dollar sign is meant", shown(f.WorkingDir, path), u.line, u.name)
	}
	if _, nameless := vars[""]; nameless && err == nil {
		err = errors.New("a line has no variable's name before =")
	}
	return maps.Clone(vars), err
}

// parseRawEnv reads what docker run --env-file does: values as they stand.
func parseRawEnv(data string, lookup dotenv.LookupFn) (map[string]string, error) {
	vars := map[string]string{}
	for i, line := range strings.Split(strings.TrimPrefix(data, "\ufeff"), "\n") {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, valued := strings.Cut(line, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("line %d: %q isn't a variable's name", i+1, clip(name))
		}
		if !valued {
			if value, valued = lookup(name); !valued {
				continue
			}
		}
		vars[name] = value
	}
	return vars, nil
}

// unsetText is how compose-go tells of a variable that isn't set.
var unsetText = regexp.MustCompile(`^The "(.*)" variable is not set`)

// literal are lines of an env file in which a dollar sign is one: comments and
// values in single quotes.
var literal = regexp.MustCompile(`^\s*#|=\s*'`)

// whereUnset finds the lines that compose-go's warnings are about: it tells of
// each use of a variable, in the order of the file, but not where it stands.
func whereUnset(data string, texts []string) (out []unset) {
	uses := map[string][]int{} // lines, by variable
	for _, text := range texts {
		m := unsetText.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		name := m[1]
		if _, looked := uses[name]; !looked {
			uses[name] = linesWith(data, name)
		}
		line := 1
		if lines := uses[name]; len(lines) > 0 {
			line = lines[0]
			uses[name] = lines[min(1, len(lines)-1):]
		}
		out = append(out, unset{name, line})
	}
	return out
}

// linesWith are the lines that use a variable, as often as they do.
func linesWith(data, name string) (lines []int) {
	use := regexp.MustCompile(`(?:^|[^$])(?:\$\$)*\$\{?` + regexp.QuoteMeta(name) + `\b`)
	for i, line := range strings.Split(data, "\n") {
		if !literal.MatchString(line) {
			for range use.FindAllString(line, -1) {
				lines = append(lines, i+1)
			}
		}
	}
	return lines
}
