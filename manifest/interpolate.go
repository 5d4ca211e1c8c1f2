package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
)

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// substitutions bounds the work of putting variables into texts: for each one,
// compose-go reads the rest of its line again, and the default of a default
// with it.
type substitutions struct{ bytes int }

func (s *substitutions) add(text string) *problem {
	for line := range strings.SplitSeq(text, "\n") {
		if nesting(line) > maxNested {
			return refuse("Write the value out", "variables are nested more than %d deep", maxNested)
		}
		s.bytes += strings.Count(line, "${") * len(line)
	}
	if s.bytes > maxSubstitution {
		return refuse("Use fewer, or break the lines", "there are too many variables in long lines")
	}
	return nil
}

// nesting is how deep variables stand in each other.
func nesting(line string) int {
	depth, deepest := 0, 0
	for i := 0; i < len(line); i++ {
		switch {
		case strings.HasPrefix(line[i:], "$$"):
			i++ // a dollar sign
		case strings.HasPrefix(line[i:], "${"):
			depth++
			deepest = max(deepest, depth)
		case line[i] == '}':
			depth = max(depth-1, 0)
		}
	}
	return deepest
}

// interpolate replaces ${VARIABLES} as Compose does.
func (w *walker) interpolate(t *tree, path string) (string, error) {
	if !strings.Contains(t.value, "$") {
		return t.value, nil
	}
	v, err := template.Substitute(t.value, func(k string) (string, bool) {
		v, ok := w.env[k]
		return v, ok
	})
	for _, text := range w.quiet.drain() {
		if m := unsetText.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("the variable %q is not set and becomes empty; write $$ where the dollar sign is meant", m[1])
		}
		w.report.warn("%s:%d: %s: %s", t.at.file, t.at.line, path, text)
	}
	if err == nil {
		if len(v) > maxText {
			return "", refuse("", "the value is longer than %d MiB", maxText>>20)
		}
		return v, nil
	}
	var missing *template.MissingRequiredError
	if errors.As(err, &missing) {
		return "", refuse("Set it in the environment, in .env or with --env-file", "the variable %s is required but not set%s", missing.Variable, because(missing.Reason))
	}
	return "", refuse("Write $$ for a dollar sign", "%q isn't a valid use of variables", clip(t.value))
}

// writtenAs tells where a bad value came from when it isn't in the file.
func writtenAs(err error, raw, value string) error {
	var p *problem
	if raw == value || !errors.As(err, &p) {
		return err
	}
	return refuse(p.hint, "%s (written as %q)", p.reason, clip(raw))
}

// settle writes down what compose-go would read differently, or with a
// warning to the terminal.
func (w *walker) settle(t *tree, r *rule, v string) {
	switch {
	case r.key.shape&shapeBool != 0 && r.key.shape&shapeInt == 0:
		t.tag, t.value = "!!bool", fmt.Sprint(bools[strings.ToLower(v)])
	case slices.Contains(texts, r.key.path):
		t.tag = "!!str" // 1.10 stays 1.10
	case slices.Contains(numbers, r.key.path):
		t.tag, t.value = "!!int", v
	case r.key.path == "services.*.configs.[].mode", r.key.path == "services.*.secrets.[].mode":
		t.tag, t.value = "!!int", fmt.Sprint(parseOctal(v))
	case r.key.path == "services.*.volumes.[].tmpfs.mode":
		n, _ := strconv.ParseUint(v, 0, 32) // checked
		t.tag, t.value = "!!int", fmt.Sprint(n)
	case strings.HasPrefix(t.value, "~") && slices.Contains(homely, r.key.path):
		t.value = strings.ReplaceAll(w.env["HOME"], "$", "$$") + t.value[1:]
	}
}

// texts are texts even where they look like numbers, and numbers even where
// they are written in quotes.
var (
	texts = []string{
		"services.*.environment.*", "services.*.labels.*", "services.*.build.args.*", "services.*.annotations.*", "services.*.sysctls.*",
		"services.*.stop_signal", "services.*.cpuset", "services.*.group_add.[]", "services.*.logging.options.*",
		"services.*.configs.[].uid", "services.*.configs.[].gid", "services.*.secrets.[].uid", "services.*.secrets.[].gid",
	}
	// homely are the paths in which ~ is the caller's home.
	homely = []string{
		"services.*.volumes.[]", "services.*.volumes.[].source",
		"services.*.env_file", "services.*.env_file.[]", "services.*.env_file.[].path",
		"services.*.label_file", "services.*.label_file.[]", "configs.*.file", "secrets.*.file", "volumes.*.driver_opts.*",
	}
	numbers = []string{
		"services.*.cpu_shares", "services.*.pids_limit", "services.*.deploy.resources.limits.pids", "services.*.blkio_config.weight",
	}
)
