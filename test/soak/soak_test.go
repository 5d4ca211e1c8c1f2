package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestMeasuring(t *testing.T) {
	found, err := measuring(fstest.MapFS{
		"a_test.go": {Data: []byte("package e\nfunc TestOne(t *T) { t.Run(\"x\", func(t *T) { row(t) }) }\nfunc TestTwo(t *T) { h := host{}; h.play() }\nfunc TestNone(t *T) { other() }\nfunc other() { other() }\n")},
		"b_test.go": {Data: []byte("package e\nfunc (h host) play() { again() }\nfunc again() { row(nil) }\nfunc row(t *T) {}\n")},
	})
	if err != nil || !slices.Equal(found, []string{"TestOne", "TestTwo"}) {
		t.Errorf("%q, %v", found, err)
	}
}

// The real ones are found, and nothing that only shares a helper with them.
func TestMeasuringFindsTheTests(t *testing.T) {
	found, err := measuring(os.DirFS("../e2e"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"TestKilledAtEveryPoint", "TestRandomKillsOfDaemons", "TestCyclesLeaveNothing"} {
		if !slices.Contains(found, name) {
			t.Errorf("%s isn't among %q", name, found)
		}
	}
	if slices.Contains(found, "TestDeployRedeployRollback") {
		t.Errorf("%q has one that tells nothing", found)
	}
}

func TestRows(t *testing.T) {
	rows, err := parseRows([]byte(`{"what":"a","must":"0","got":"0","ok":true}` + "\n" + `{"what":"b","must":"≤ 1 s","got":"2 s","ok":false}` + "\n"))
	if err != nil || len(rows) != 2 {
		t.Fatalf("%v, %v", rows, err)
	}
	if why := wrong(rows); len(why) != 1 || why[0] != "b: 2 s, and must be ≤ 1 s" {
		t.Errorf("%q", why)
	}
	if text := table(rows); !strings.Contains(text, "| a | 0 | 0 | ok |") || !strings.Contains(text, "| b | ≤ 1 s | 2 s | **not met** |") {
		t.Errorf("%s", text)
	}
	if _, err := parseRows([]byte("cut sho")); err == nil {
		t.Error("what was cut short is read")
	}
}
