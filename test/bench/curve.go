package main

import (
	"fmt"
	pixels "image"
	"image/color"
	"image/png"
	"math"
	"os"
	"time"
)

// point is a cost at a size.
type point struct {
	Size int
	Cost time.Duration
}

// curve is a cost that grows with a number of things.
type curve struct {
	Name   string // in capitals: the font has no others
	Of     string
	Points []point
	color  color.Color
}

// The picture: both axes are logarithmic, 1 to 1,000 things and 0.01 to 1,000 ms.
const (
	plotWidth, plotHeight = 640, 460
	plotLeft, plotTop     = 70, 20
	plotRight, plotBottom = 610, 400
	leastMs, sizeDecades  = 0.01, 3
	msDecades             = 5
)

// saveCurves draws curves into a PNG file.
func saveCurves(path string, curves []curve) error {
	img := pixels.NewRGBA(pixels.Rect(0, 0, plotWidth, plotHeight))
	for i := range img.Pix {
		img.Pix[i] = 0xff
	}
	black, grey := color.Black, color.Gray{0xdd}
	for d := range sizeDecades + 1 {
		x := across(math.Pow10(d))
		line(img, x, plotTop, x, plotBottom, grey)
		text := fmt.Sprint(math.Pow10(d))
		write5x7(img, x-3*len(text), plotBottom+8, text, black)
	}
	for d := range msDecades + 1 {
		y := up(leastMs * math.Pow10(d))
		line(img, plotLeft, y, plotRight, y, grey)
		text := fmt.Sprintf("%g MS", leastMs*math.Pow10(d))
		write5x7(img, plotLeft-8-6*len(text), y-3, text, black)
	}
	line(img, plotLeft, plotTop, plotLeft, plotBottom, black)
	line(img, plotLeft, plotBottom, plotRight, plotBottom, black)
	for i, c := range curves {
		for j, p := range c.Points {
			x, y := across(float64(p.Size)), up(float64(p.Cost.Microseconds())/1000)
			for dx := -2; dx <= 2; dx++ {
				line(img, x+dx, y-2, x+dx, y+2, c.color)
			}
			if j > 0 {
				before := c.Points[j-1]
				line(img, across(float64(before.Size)), up(float64(before.Cost.Microseconds())/1000), x, y, c.color)
			}
		}
		write5x7(img, plotLeft+180*i, plotBottom+32, c.Name+" BY "+c.Of, c.color)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("draw curves: %w", err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		return fmt.Errorf("draw curves: %w", err)
	}
	return f.Close()
}

func across(size float64) int {
	return plotLeft + int(math.Log10(size)/sizeDecades*(plotRight-plotLeft))
}

func up(ms float64) int {
	return plotBottom - int(math.Log10(ms/leastMs)/msDecades*(plotBottom-plotTop))
}

func line(img *pixels.RGBA, x0, y0, x1, y1 int, c color.Color) {
	steps := max(1, max(x1-x0, x0-x1), max(y1-y0, y0-y1))
	for i := range steps + 1 {
		img.Set(x0+(x1-x0)*i/steps, y0+(y1-y0)*i/steps, c)
	}
}

// font has a byte for each of a letter's seven rows; the lowest five bits are
// its dots.
var font = map[rune][7]byte{
	'0': {14, 17, 19, 21, 25, 17, 14}, '1': {4, 12, 4, 4, 4, 4, 14}, '.': {0, 0, 0, 0, 0, 12, 12},
	'A': {14, 17, 17, 31, 17, 17, 17}, 'B': {30, 17, 17, 30, 17, 17, 30}, 'C': {14, 17, 16, 16, 16, 17, 14},
	'E': {31, 16, 16, 30, 16, 16, 31}, 'I': {14, 4, 4, 4, 4, 4, 14}, 'K': {17, 18, 20, 24, 20, 18, 17},
	'L': {16, 16, 16, 16, 16, 16, 31}, 'M': {17, 27, 21, 21, 17, 17, 17}, 'N': {17, 25, 21, 19, 17, 17, 17},
	'O': {14, 17, 17, 17, 17, 17, 14}, 'P': {30, 17, 17, 30, 16, 16, 16}, 'R': {30, 17, 17, 30, 20, 18, 17},
	'S': {15, 16, 16, 14, 1, 1, 30}, 'T': {31, 4, 4, 4, 4, 4, 4}, 'W': {17, 17, 17, 21, 21, 27, 17}, 'Y': {17, 17, 10, 4, 4, 4, 4},
}

func write5x7(img *pixels.RGBA, x, y int, text string, c color.Color) {
	for i, r := range text {
		for row, dots := range font[r] {
			for col := range 5 {
				if dots>>(4-col)&1 == 1 {
					img.Set(x+6*i+col, y+row, c)
				}
			}
		}
	}
}
