package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Bounds of one manifest. Real files are below 1 % of each; what is above is
// an accident or an attack.
const (
	maxFileBytes = 4 << 20
	maxNodes     = 50_000 // after aliases are followed
	maxText      = 8 << 20
	maxDepth     = 64
	maxDocuments = 64
	maxKey       = 1024 // bytes

	maxNested       = 32      // variables in the defaults of variables
	maxSubstitution = 4 << 20 // bytes that substitutions counts; half a second
)

// source is one file as it was found.
type source struct {
	name string // as shown to people
	path string // absolute; empty for standard input
	data []byte
}

// fileKind is what a file is, for the words about it.
type fileKind struct {
	name   string
	begins string // a key that it may begin with
}

var (
	ofCompose = fileKind{"a Compose file", "services"}
	ofHost    = fileKind{"the host's file", "disk"}
)

// layer is one YAML document of a source. Later layers override earlier ones.
type layer struct {
	src  source
	root *tree
	dir  string            // what relative paths start from, absolute
	env  map[string]string // what variables are taken from

	foreign      bool            // included: dir and env aren't the project's
	extendedOnly bool            // read for extends.file: services are checked as they are used
	checked      map[string]bool // those that have been
}

// readFile reads a file of at most maxFileBytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, fmt.Errorf("%s is a directory; name the file in it", path)
	}
	return readLimited(f, path)
}

// readRegular is readFile for what a manifest names: a pipe or a device there
// could block for ever.
func readRegular(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s isn't a regular file", path)
	}
	return readFile(path)
}

func readLimited(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d MiB; it can't be a manifest", name, maxFileBytes>>20)
	}
	return b, nil
}

// parse reads the documents of a source. Problems go to r; what it returns may
// be empty then.
func parse(src source, of fileKind, r *report) []*layer {
	r.file(src.name)
	data := bytes.TrimPrefix(src.data, []byte("\xef\xbb\xbf"))
	if p, line := checkText(data); p != nil {
		r.add(place{src.name, line, 1}, "", p)
		return nil
	}
	var layers []*layer
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			addSyntaxError(r, src.name, data, err)
			return nil
		}
		if len(layers) == maxDocuments {
			r.add(place{src.name, doc.Line, doc.Column}, "", refuse("Split the file", "it holds more than %d documents", maxDocuments))
			return nil
		}
		x := expander{file: src.name, of: of, report: r}
		root := x.document(&doc)
		if r.ended {
			return nil
		}
		if root != nil {
			if len(layers) > 0 {
				r.note("%s:%d:%d: a further YAML document starts here; it is merged over what stands before, as in Compose", src.name, doc.Line, doc.Column)
			}
			layers = append(layers, &layer{src: src, root: root})
		}
	}
	return layers
}

// checkText refuses what YAML can't hold, with the line.
func checkText(data []byte) (*problem, int) {
	for i, line := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(line) {
			return refuse("Save it as UTF-8", "the file isn't UTF-8 text"), i + 1
		}
		if bytes.IndexByte(line, 0) >= 0 {
			return refuse("Save it as UTF-8", "the file holds a zero byte, so it isn't text"), i + 1
		}
	}
	return nil, 0
}

func addSyntaxError(r *report, file string, data []byte, err error) {
	at := place{file, 1, 1}
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	var le *yaml.LoadError
	if errors.As(err, &le) {
		at.line, at.column = max(le.Mark.Line, 1), max(le.Mark.Column, 1)
		msg = le.Message
	}
	if line, ok := tabIndent(data, at.line); ok {
		r.add(place{file, line, 1}, "", refuse("Indent with spaces", "the line is indented with a tab, which YAML forbids"))
		return
	}
	if name := bareVariable(data, at); name != "" {
		r.add(at, "", refuse("Write the value in quotes", "not valid YAML: within { } or [ ], the braces of ${%s} are read as YAML's own", name))
		return
	}
	r.add(at, "", refuse("Correct the YAML", "not valid YAML: %s", msg))
}

// bareVariable is the name of the variable ${NAME...} at whose opening brace the
// parser stopped, as it does within a flow mapping or list; "" = there is none.
func bareVariable(data []byte, at place) string {
	lines := bytes.Split(data, []byte("\n"))
	if at.line > len(lines) {
		return ""
	}
	line := lines[at.line-1]
	if at.column < 2 || at.column > len(line) || string(line[at.column-2:at.column]) != "${" {
		return ""
	}
	return string(variableName.Find(line[at.column:]))
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)

// tabIndent finds the line with a tab in its indentation that made the parser
// stop at or shortly after line.
func tabIndent(data []byte, line int) (int, bool) {
	lines := strings.Split(string(data), "\n")
	for n := min(line+1, len(lines)); n >= 1 && n >= line-1; n-- {
		text := lines[n-1]
		indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
		if strings.Contains(indent, "\t") {
			return n, true
		}
	}
	return 0, false
}
