package main

import (
	"fmt"
	"image/color"
	"math"
	"time"

	"dunnage/test/plot"
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
	img := plot.New(plotWidth, plotHeight)
	black, grey := color.Black, color.Gray{0xdd}
	for d := range sizeDecades + 1 {
		x := across(math.Pow10(d))
		plot.Line(img, x, plotTop, x, plotBottom, grey)
		text := fmt.Sprint(math.Pow10(d))
		plot.Text(img, x-3*len(text), plotBottom+8, text, black)
	}
	for d := range msDecades + 1 {
		y := up(leastMs * math.Pow10(d))
		plot.Line(img, plotLeft, y, plotRight, y, grey)
		text := fmt.Sprintf("%g MS", leastMs*math.Pow10(d))
		plot.Text(img, plotLeft-8-6*len(text), y-3, text, black)
	}
	plot.Line(img, plotLeft, plotTop, plotLeft, plotBottom, black)
	plot.Line(img, plotLeft, plotBottom, plotRight, plotBottom, black)
	for i, c := range curves {
		for j, p := range c.Points {
			x, y := across(float64(p.Size)), up(float64(p.Cost.Microseconds())/1000)
			for dx := -2; dx <= 2; dx++ {
				plot.Line(img, x+dx, y-2, x+dx, y+2, c.color)
			}
			if j > 0 {
				before := c.Points[j-1]
				plot.Line(img, across(float64(before.Size)), up(float64(before.Cost.Microseconds())/1000), x, y, c.color)
			}
		}
		plot.Text(img, plotLeft+180*i, plotBottom+32, c.Name+" BY "+c.Of, c.color)
	}
	return plot.Save(img, path)
}

func across(size float64) int {
	return plotLeft + int(math.Log10(size)/sizeDecades*(plotRight-plotLeft))
}

func up(ms float64) int {
	return plotBottom - int(math.Log10(ms/leastMs)/msDecades*(plotBottom-plotTop))
}
