package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"dunnage/test/load"
)

func TestAMissedMustIsSeen(t *testing.T) {
	var r results
	if r.ok() {
		t.Error("ok without a single row")
	}
	r.add(row{What: "good", OK: true})
	if !r.ok() {
		t.Error("not ok though all is met")
	}
	r.add(row{What: "bad"})
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	if r.ok() || !strings.Contains(out.String(), "NOT ok") {
		t.Errorf("a missed must passed:\n%s", out.String())
	}
}

func TestArguments(t *testing.T) {
	if o, err := parse([]string{"-only", "swap"}); err != nil || o.only != "swap" || o.runs != 11 {
		t.Errorf("flags: %+v, %v", o, err)
	}
	if _, err := parse([]string{"-runs", "1", "swap"}); err == nil {
		t.Error("an argument that means nothing passed")
	}
}

func TestFigures(t *testing.T) {
	ms := func(v ...int) (d []time.Duration) {
		for _, x := range v {
			d = append(d, time.Duration(x)*time.Millisecond)
		}
		return d
	}
	if m := median(ms(9, 1, 5)); m != 5*time.Millisecond {
		t.Errorf("median %v", m)
	}
	// The machine got slower half way: the ratio of each pair didn't change.
	if r := pairedRatio(ms(10, 20, 100, 200), ms(5, 10, 50, 100)); r != 2 {
		t.Errorf("ratio %v", r)
	}
	r := redeployed{Quiet: load.Report{LongestGap: 30}, Report: load.Report{LongestGap: 42}}
	if r.gap() != 12 {
		t.Errorf("gap %v", r.gap())
	}
}
