package manifest

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/spec"
)

func loadHost(t *testing.T, text string) (spec.HostConfig, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadHost(path)
	if err != nil {
		err = fmt.Errorf("%s", strings.ReplaceAll(err.Error(), path, "config.yaml"))
	}
	return c, err
}

func TestLoadHost(t *testing.T) {
	c, err := loadHost(t, "disk: {budget: 40G, keep_releases: 5}\nlogs:\n  max-size: 20m\n  max-file: 7\n  compress: no\n  forward: syslog://10.0.0.5\nmetrics: {listen: \"127.0.0.1:9477\"}\n")
	if err != nil {
		t.Fatal(err)
	}
	want := spec.HostConfig{
		Disk:    spec.DiskConfig{Budget: 40 << 30, KeepReleases: 5},
		Logs:    spec.Logging{MaxSize: 20 << 20, MaxFile: 7, Compress: spec.Off, Forward: spec.LogForward{To: "udp://10.0.0.5:514"}},
		Metrics: netip.MustParseAddrPort("127.0.0.1:9477"),
	}
	if c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
	for _, empty := range []string{"", "# nothing\n", "disk: {}\n"} {
		if c, err := loadHost(t, empty); err != nil || c != (spec.HostConfig{}) {
			t.Errorf("%q: %+v, %v", empty, c, err)
		}
	}
}

// TestLoadHostRefuses: each message says where, why and what to do.
func TestLoadHostRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"disk: {budgte: 1G}":              `config.yaml:1:8: disk.budgte: refused: this version of dunnage doesn't know the key. Did you mean budget?`,
		"volumes: {}":                     `config.yaml:1:1: volumes: refused: this version of dunnage doesn't know the key. Known here: disk, logs, metrics`,
		"disk: {budget: 5}":               `config.yaml:1:16: disk.budget: refused: a budget of "5" holds no image. Use 64M or more, such as 40G, or remove the key for none`,
		"disk: {keep_releases: 0}":        `config.yaml:1:23: disk.keep_releases: refused: "0" is out of range. Use 1 to 100`,
		"- disk":                          "config.yaml:1:1: refused: the file must be a mapping, but this is a list. Start with a key, such as `disk:` in the host's file",
		"disk: !size 1G":                  `config.yaml:1:7: disk: refused: the YAML tag !size has no meaning in the host's file. Remove the tag`,
		"disk: [1]":                       `config.yaml:1:7: disk: refused: it must be a mapping, but this is a list`,
		"logs:\n  max-file: many":         `config.yaml:2:13: logs.max-file: refused: "many" is out of range. Use 1 to 1000`,
		"logs: {max-size: many}":          `config.yaml:1:18: logs.max-size: refused: "many" isn't the size of a log file. Write it as 10m`,
		"logs: {max-size: 0}":             `config.yaml:1:18: logs.max-size: refused: a file of "0" holds no log. Use 4k or more, such as 10m`,
		"logs: {max-size: 1}":             `config.yaml:1:18: logs.max-size: refused: a file of "1" holds no log. Use 4k or more, such as 10m`,
		"logs: {max-size: 4095}":          `config.yaml:1:18: logs.max-size: refused: a file of "4095" holds no log. Use 4k or more, such as 10m`,
		"metrics: {listen: 0.0.0.0:9477}": `config.yaml:1:19: metrics.listen: refused: 0.0.0.0 can be reached from other machines, and nobody is asked who they are there. Use 127.0.0.1 or [::1], and put what authenticates in front`,
		"logs: {forward: splunk}":         `config.yaml:1:17: logs.forward: refused: "splunk" isn't the address of a syslog. Write it as journald, syslog, syslog://127.0.0.1:514 or tcp://[2001:db8::1]:514`,
		"metrics: {listen: 9477}":         `config.yaml:1:19: metrics.listen: refused: "9477" isn't an address with a port. Write it as 127.0.0.1:9477`,
		"disk:\n\tbudget: 1G":             `config.yaml:2:1: refused: the line is indented with a tab, which YAML forbids. Indent with spaces`,
	} {
		if _, err := loadHost(t, text); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

// TestHostDocs: docs/host.md is the table.
func TestHostDocs(t *testing.T) {
	path := filepath.Join("..", "docs", "host.md")
	want := hostDocument()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from the table in host.go; run go generate ./manifest", path)
	}
}

const hostPreface = `# The host's file

<!-- Generated from the table in manifest/host.go by "go generate ./manifest". Don't edit. -->

The agent reads what the host's owner sets from ` + "`--config FILE`, without that flag from `/etc/dunnage/config.yaml`" + ` if there is
one. A key that isn't here is refused, with its place. A change counts when the agent starts again, which no container and
no connection notices. Check it first, since an agent doesn't start with a file that has problems:
` + "`dunnage agent --check && systemctl restart dunnage`" + `.

` + "```yaml" + `
disk: {budget: 40G, keep_releases: 5}
logs: {max-size: 20m, max-file: 5}
metrics: {listen: "127.0.0.1:9477"}
` + "```" + `

| key | what it means |
|---|---|
`

func hostDocument() []byte {
	var b bytes.Buffer
	b.WriteString(hostPreface)
	for _, k := range hostFileKeys {
		fmt.Fprintf(&b, "| `%s` | %s |\n", k.path, sentence(k))
	}
	return b.Bytes()
}
