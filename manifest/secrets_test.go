package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// TestSecretFiles: what a file has is the value, byte for byte, or is refused
// without a word of it.
func TestSecretFiles(t *testing.T) {
	whole := []byte(canaryValue + strings.Repeat("\x00\xff\r\n", spec.MaxSecret/4))[:spec.MaxSecret]
	for name, c := range map[string]struct {
		make func(path string) error
		want []byte // nil = refused
		says string
	}{
		"one byte":      {write([]byte{0}), []byte{0}, ""},
		"the most":      {write(whole), whole, ""},
		"one more":      {write(append(whole[:len(whole):len(whole)], 'x')), nil, "longer than 512 KiB"},
		"endless":       {func(p string) error { return errors.Join(write(nil)(p), os.Truncate(p, 1<<40)) }, nil, "longer than 512 KiB"},
		"nothing":       {write(nil), nil, "is empty"},
		"a pipe":        {func(p string) error { return unix.Mkfifo(p, 0o600) }, nil, "isn't a regular file"},
		"a directory":   {func(p string) error { return os.Mkdir(p, 0o700) }, nil, "isn't a regular file"},
		"not its size":  {func(p string) error { return os.Symlink("/proc/version", p) }, nil, "more in it than its size says"},
		"a link":        {func(p string) error { return errors.Join(write(whole[:9])(p+"~"), os.Symlink(p+"~", p)) }, whole[:9], ""},
		"a broken link": {func(p string) error { return os.Symlink("nowhere", p) }, nil, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			r, err := loadText(t, "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {file: "+path+"}}\n")
			switch {
			case c.want == nil && (err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), canaryValue)):
				t.Errorf("%v, want one that says %q", err, c.says)
			case c.want != nil && err != nil:
				t.Error(err)
			case c.want != nil && !bytes.Equal(r.Secrets["s"].Reveal(), c.want):
				t.Error("the value isn't what the file has")
			}
		})
	}
}

func write(data []byte) func(string) error {
	return func(path string) error { return os.WriteFile(path, data, 0o600) }
}

func loadText(t *testing.T, text string, env ...string) (Result, error) {
	t.Helper()
	return Load(t.Context(), Options{Files: []string{"-"}, Stdin: strings.NewReader(text), WorkingDir: "/nowhere/project", Environment: env})
}

// TestSecretOfTheEnvironmentTooLong: as with files.
func TestSecretOfTheEnvironmentTooLong(t *testing.T) {
	_, err := loadText(t, "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {environment: S}}\n", "S="+strings.Repeat(canaryValue, spec.MaxSecret))
	if err == nil || !strings.Contains(err.Error(), "2:15: secrets.s.environment: refused: the secret's value is longer") || strings.Contains(err.Error(), canaryValue) {
		t.Errorf("%.300v", err)
	}
}

// TestSecretsOfOrphans: what only an orphan uses isn't printed.
func TestSecretsOfOrphans(t *testing.T) {
	r, err := loadText(t, "services: {a: {image: x, secrets: [s, t]}, b: {image: x, secrets: [t]}}\nsecrets: {s: {external: true}, t: {external: true}}\n")
	if err != nil {
		t.Fatal(err)
	}
	r.Project.Services[0].Orphan = true
	text, err := Encode(r.Project)
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadText(t, string(text))
	if err != nil || len(again.Warnings) > 0 || fmt.Sprint(again.Project.Secrets) != fmt.Sprint(r.Project.Secrets[1:]) {
		t.Errorf("%v, %v, %v from\n%s", err, again.Warnings, again.Project.Secrets, text)
	}
}

// TestWithoutSecrets: who sends no values gets on without them, and is told.
func TestWithoutSecrets(t *testing.T) {
	text := "services: {a: {image: x, secrets: [gone, unset]}}\nsecrets:\n  gone: {file: ./nowhere}\n  unset: {environment: NOT_SET}\n"
	path := filepath.Join(t.TempDir(), "compose.yaml")
	if err := write([]byte(text))(path); err != nil {
		t.Fatal(err)
	}
	o := Options{WorkingDir: filepath.Dir(path)}
	if _, err := Load(t.Context(), o); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("with values: %v, want it refused", err)
	}
	o.WithoutSecrets = true
	r, err := Load(t.Context(), o)
	if err != nil || len(r.Project.Secrets) != 2 || len(r.Secrets) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, want := range []string{
		"compose.yaml:3:10: secrets.gone.file: the secret can't be read: open " + filepath.Dir(path) + "/nowhere: no such file or directory; a deploy would be refused",
		"compose.yaml:4:11: secrets.unset.environment: the variable NOT_SET isn't set; a deploy would be refused",
	} {
		if i >= len(r.Warnings) || r.Warnings[i] != want {
			t.Errorf("warnings %q, want %q", r.Warnings, want)
		}
	}
}

// TestSecretPlaces: each secret is found where it is declared, else where it is
// used.
func TestSecretPlaces(t *testing.T) {
	r, err := loadText(t, `services:
  a:
    image: x
    secrets: [db]
    configs: [conf]
    x-dunnage: {secret_env: {DB: db, TOKEN: token}}
configs:
  conf: {content: '{{ secret "key" }}{{ secret "db" }}'}
secrets:
  db: {external: true}
  other: {external: true}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"db":    "-:10:3: secrets.db",
		"token": "-:6:38: services.a.x-dunnage.secret_env.TOKEN",
		"key":   "-:8:3: configs.conf",
	}
	if fmt.Sprint(r.Places) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", r.Places, want)
	}
}
