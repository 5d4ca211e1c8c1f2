package manifest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
)

var update = flag.Bool("update", false, "write docs/compose.md and the golden parts of testdata anew")

// TestDocs: docs/compose.md is the table, and ends with the share of real files
// that load.
func TestDocs(t *testing.T) {
	path := filepath.Join("..", "docs", "compose.md")
	got, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(got)), "\n")
	want := document(share(t, lines[len(lines)-1]))
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from the table in keys*.go; run go generate ./manifest", path)
	}
}

const preface = `# Compose keys

<!-- Generated from the table in manifest/keys*.go by "go generate ./manifest". Don't edit. -->

dunnage reads Compose files. This is the table that decides, key by key, what becomes of them; nothing is silently
ignored. *Honoured* means what the [Compose Specification](https://github.com/compose-spec/compose-spec) says.
*Honoured differently* is accepted and does what the text says. *Refused* is an error with file, line and column, for
the key and everything below it. A key that isn't here is refused too. ` + "`*`" + ` stands for any name, ` + "`[]`" + ` for any item of a list.

Files are found as Compose finds them, ` + "`dunnage.yaml`" + ` before all others: ` + "`compose.yaml`, `compose.yml`, `docker-compose.yml`" + `
in the working directory or above, with ` + "`compose.override.yaml`" + ` where it stands beside one of these three. ` + "`-f`" + ` repeats,
` + "`COMPOSE_FILE`, `COMPOSE_PROJECT_NAME`, `COMPOSE_PROFILES`, `.env`, `--env-file` and `--project-directory`" + ` count as in Compose.
Interpolation, merging, ` + "`!reset`, `!override`" + `, anchors and merge keys are Compose's own. A variable that isn't set is an empty
text and a note; a default may hold a variable with a default, 32 deep. Further YAML documents in a file are merged over
those before them, as in Compose, and a note says so.
`

var sections = []struct {
	title  string
	prefix string
	rows   []key
}{
	{"Top level", "", topKeys},
	{"Services", "services.*.", serviceKeys},
	{"Services: the image", "services.*.", imageKeys},
	{"Services: restarts and rollouts", "services.*.", rolloutKeys},
	{"Services: the container", "services.*.", containerKeys},
	{"Services: limits", "services.*.", limitKeys},
	{"Services: the host and confinement", "services.*.", hostKeys},
	{"Services: `x-dunnage`", "services.*.", dunnageKeys},
	{"Services: refused keys", "services.*.", refusedKeys},
	{"Networks", "", networkKeys},
	{"Volumes", "", volumeKeys},
	{"Configs", "", configKeys},
	{"Secrets", "", secretKeys},
}

func document(share string) []byte {
	var b bytes.Buffer
	b.WriteString(preface)
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n| key | verdict | what it means here |\n|---|---|---|\n", s.title)
		for _, k := range s.rows {
			name := strings.ReplaceAll(strings.TrimPrefix(k.path, s.prefix), ".[]", "[]")
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, k.verdict, sentence(k))
		}
	}
	fmt.Fprintf(&b, "\n## How many files load\n\n%s\n", share)
	return b.Bytes()
}

// sentence is the text of a row as it stands in a document.
func sentence(k key) string {
	text := k.text
	if k.verdict == refused {
		text = strings.ToUpper(text[:1]) + text[1:] + ". " + k.hint + "."
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, "|", "\\|"), "<", "&lt;")
}

// TestTableIsWhole: every attribute of the Compose Specification's schema has
// a row, or stands below a key that is refused
// or not looked into; and no row is a misprint.
func TestTableIsWhole(t *testing.T) {
	known := map[string]bool{}
	for _, p := range schema.AttributePaths() {
		known[string(p)] = true
		if !covered(string(p)) {
			t.Errorf("%s is in the schema but not in the table: it would be refused as unknown", p)
		}
	}
	seen := map[string]bool{}
	for _, k := range table {
		if seen[k.path] {
			t.Errorf("%s is in the table twice", k.path)
		}
		seen[k.path] = true
		if k.verdict == refused && (k.text == "" || k.hint == "") {
			t.Errorf("%s is refused without a reason or a next step", k.path)
		}
		ours := strings.Contains(k.path, "x-") || strings.HasSuffix(k.path, ".[]")
		if !known[k.path] && !ours {
			t.Errorf("%s is in the table but not in the schema", k.path)
		}
	}
	if len(known) < 500 {
		t.Errorf("the schema has only %d attributes: is it read?", len(known))
	}
}

func covered(path string) bool {
	r := rules
	for _, name := range strings.Split(path, ".") {
		if r = r.child(name); r == nil {
			return false
		}
		if r.known && (r.key.verdict == refused || r.key.shape&shapeAny != 0) {
			return true
		}
	}
	return r.known
}
