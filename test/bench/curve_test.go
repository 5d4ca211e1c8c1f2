package main

import (
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dunnage/test/plot"
)

// A curve is where its costs say, and every letter can be written.
func TestCurves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "curves.png")
	red := color.RGBA{0xff, 0, 0, 0xff}
	if err := saveCurves(path, []curve{{Name: "SWAP", Of: "PORTS", color: red, Points: []point{{1, time.Millisecond}, {100, 10 * time.Millisecond}}}}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	if got := color.RGBAModel.Convert(img.At(across(10), up(3.1622776601683795))); got != red {
		t.Errorf("half way the curve is %v", got)
	}
	for _, text := range []string{"SWAP LOOK PLAN BY PORTS REPLICAS", "1000.1 MS"} {
		if !plot.Has(text) {
			t.Errorf("the font lacks something of %q", text)
		}
	}
}
