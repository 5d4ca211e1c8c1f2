package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/urfave/cli/v2"

	"dunnage/spec"
)

func TestStdinValue(t *testing.T) {
	for in, want := range map[string]string{
		"":          "",
		"\n":        "",
		"a":         "a",
		"a\n":       "a",
		"a\r\n":     "a",
		"a\n\n":     "a\n\n", // two lines: both ends count
		"a\nb\n":    "a\nb\n",
		"a \n":      "a ",
		"\xff\x00":  "\xff\x00",
		"a\r":       "a\r",
		"$HOME#\\n": "$HOME#\\n",
	} {
		p := &program{stdin: iotest.OneByteReader(strings.NewReader(in))}
		if v, err := p.stdinValue(); err != nil || string(v.Reveal()) != want {
			t.Errorf("%q: %q, %v, want %q", in, v.Reveal(), err, want)
		}
	}
}

// TestStdinBound: the longest value may have a line end, and no byte more.
func TestStdinBound(t *testing.T) {
	longest := strings.Repeat("v", spec.MaxSecret)
	for in, ok := range map[string]bool{longest: true, longest + "\r\n": true, longest + "v": false, longest + "v\r\n": false, longest + longest: false} {
		v, err := (&program{stdin: strings.NewReader(in)}).stdinValue()
		if err != nil || (v.Check() == nil) != ok {
			t.Errorf("%d bytes: %v, %v", len(in), v.Check(), err)
		}
	}
}

func TestEnvLine(t *testing.T) {
	for line, want := range map[string]string{
		"":                    " | ",
		"  # A=b":             " | ",
		"A=b":                 "A | b",
		"export A=b":          "A | b",
		" a.b-c_d = e f ":     "a.b-c_d | e f",
		"\ufeffA=b":           "A | b",
		"A=b=c":               "A | b=c",
		"A=":                  "A | ",
		`A="b c "`:            "A | b c ",
		`A='b"c'`:             `A | b"c`,
		`A="$b\n"`:            `A | $b\n`,
		"A=b # no comment":    "A | b # no comment",
		"A=it's":              "A | it's",
		`A="b`:                "begins with a quote",
		`A="`:                 "begins with a quote",
		`A='b"`:               "begins with a quote",
		"secret":              "no = in the line",
		"sec ret=x":           "no name of a secret",
		"=secret":             "no name of a secret",
		"A\x00=secret":        "no name of a secret",
		"export  A = 'b' \r":  "A | b",
		"exported=yes":        "exported | yes",
		"A='-----\\nsecret-'": `A | -----\nsecret-`,
	} {
		name, value, err := envLine(line)
		got := name + " | " + value
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != want || err != nil && (!strings.Contains(got, want) || strings.Contains(got, "secret") && !strings.Contains(got, "name of a secret")) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// TestGenerated: the right length, of all letters and digits about as often.
func TestGenerated(t *testing.T) {
	const n = 62_000
	v, err := generated(n)
	if err != nil || len(v.Reveal()) != n {
		t.Fatalf("%d characters, %v", len(v.Reveal()), err)
	}
	seen := map[byte]int{}
	for _, b := range v.Reveal() {
		seen[b]++
	}
	for _, b := range []byte(alphanumeric) {
		if seen[b] < 800 || seen[b] > 1200 { // 1,000 expected; 200 are six standard deviations
			t.Errorf("%c comes %d times in %d", b, seen[b], n)
		}
	}
	if len(seen) != len(alphanumeric) {
		t.Errorf("%d different characters, want %d", len(seen), len(alphanumeric))
	}
	if other, err := generated(32); err != nil || len(other.Reveal()) != 32 || other.Equal(spec.NewSecretValue(v.Reveal()[:32])) {
		t.Errorf("another value: %v", err)
	}
	for _, bad := range []int{-1, 0, spec.MaxSecret + 1} {
		if _, err := generated(bad); err == nil {
			t.Errorf("%d characters are no error", bad)
		}
	}
}

// TestAuditCheck: a record may begin late only where the rest was dropped for its
// age.
func TestAuditCheck(t *testing.T) {
	var all []spec.AuditEntry
	var last spec.AuditEntry
	for i := range 10 {
		last = spec.AuditEntry{Kind: spec.AuditSet, Secret: fmt.Sprint(i)}.After(last)
		all = append(all, last)
	}
	changed := slices.Clone(all)
	changed[4].Secret = "other"
	for _, c := range []struct {
		name    string
		entries []spec.AuditEntry
		kept    uint64
		want    string
	}{
		{"none", nil, 10, ""},
		{"all", all, 10, ""},
		{"the newest five of five that are kept", all[5:], 5, ""},
		{"the newest five of ten that are kept", all[5:], 10, "audit entries 1 to 5 are missing: the newest 10 are kept, and only 5 are there"},
		{"one taken out", slices.Concat(all[:3], all[4:]), 10, "audit entry 4 is missing"},
		{"one changed", changed, 10, "audit entry 5 was changed"},
		{"the first that is kept changed", changed[4:], 6, "audit entry 5 was changed"},
		{"two exchanged", []spec.AuditEntry{all[1], all[0]}, 2, "entry 1 stands after entry 2"},
	} {
		var check auditCheck
		var err error
		for _, e := range c.entries {
			if err == nil {
				err = check.add(e)
			}
		}
		if err == nil {
			err = check.end(c.kept)
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestKeySources(t *testing.T) {
	for args, want := range map[string]string{
		"":                                     "file:/state/secrets.key  <nil>",
		"--key-file /k":                        "file:/k  <nil>",
		"--key-source credential":              "credential  <nil>",
		"--key-source credential:x":            "credential:x  <nil>",
		"--key-source command:/bin/key":        "command:/bin/key  <nil>",
		"--key-source passphrase --key-file k": `  --key-file is for --key-source file, and that is "passphrase"`,
		"--key-source passphrase --former-key-source file":               "passphrase file:/state/secrets.key <nil>",
		"--key-source passphrase --former-key-source file --key-file /k": "passphrase file:/k <nil>",
		"--former-key-source passphrase":                                 "file:/state/secrets.key passphrase <nil>",
	} {
		got := ""
		app := &cli.App{Flags: keyFlags(), Action: func(c *cli.Context) error {
			source, former, err := keySources(c, "/state")
			got = fmt.Sprintf("%s %s %v", source, former, err)
			return nil
		}}
		if err := app.Run(append([]string{"agent"}, strings.Fields(args)...)); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", args, got, err, want)
		}
	}
}

// TestLater: a project that is busy is named, with what it waits for.
func TestLater(t *testing.T) {
	var out, said bytes.Buffer
	p := &program{stdout: &out, stderr: &said}
	s := spec.SecretChange{SecretStatus: spec.SecretStatus{SecretID: spec.SecretID{Project: "shop", Name: "a"}, Version: 4, UsedBy: []string{"shop/web"}}, Later: []string{"shop"}}
	if err := p.printChanges([]spec.SecretChange{s}); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String()+said.String(), "shop/a  version 4  used by shop/web\nnote: shop gets it after the change that is at work on it, or its pause\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestOperationsOnce: an operation that brings several secrets is followed once.
func TestOperationsOnce(t *testing.T) {
	a, b := spec.Operation{ID: "a"}, spec.Operation{ID: "b"}
	ops := operationsOf([]spec.SecretChange{{Operations: []spec.Operation{a, b}}, {Operations: []spec.Operation{a}}})
	if len(ops) != 2 || ops[0].ID != "a" || ops[1].ID != "b" {
		t.Errorf("%+v", ops)
	}
}
