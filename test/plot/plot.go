// Package plot draws lines and words into pictures: what a test or a measurement
// found, as documentation shows it.
package plot

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
)

// New is a white picture.
func New(width, height int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range img.Pix {
		img.Pix[i] = 0xff
	}
	return img
}

// Line draws a line of one dot's width.
func Line(img *image.RGBA, x0, y0, x1, y1 int, c color.Color) {
	steps := max(1, max(x1-x0, x0-x1), max(y1-y0, y0-y1))
	for i := range steps + 1 {
		img.Set(x0+(x1-x0)*i/steps, y0+(y1-y0)*i/steps, c)
	}
}

// font has a byte for each of a letter's seven rows; the lowest five bits are
// its dots.
var font = map[rune][7]byte{
	'0': {14, 17, 19, 21, 25, 17, 14}, '1': {4, 12, 4, 4, 4, 4, 14}, '2': {14, 17, 1, 2, 4, 8, 31}, '3': {31, 2, 4, 2, 1, 17, 14},
	'4': {2, 6, 10, 18, 31, 2, 2}, '5': {31, 16, 30, 1, 1, 17, 14}, '6': {6, 8, 16, 30, 17, 17, 14}, '7': {31, 1, 2, 4, 8, 8, 8},
	'8': {14, 17, 17, 14, 17, 17, 14}, '9': {14, 17, 17, 15, 1, 2, 12}, '.': {0, 0, 0, 0, 0, 12, 12},
	'A': {14, 17, 17, 31, 17, 17, 17}, 'B': {30, 17, 17, 30, 17, 17, 30}, 'C': {14, 17, 16, 16, 16, 17, 14},
	'D': {30, 17, 17, 17, 17, 17, 30}, 'F': {31, 16, 16, 30, 16, 16, 16}, 'G': {14, 17, 16, 23, 17, 17, 15}, 'H': {17, 17, 17, 31, 17, 17, 17},
	'U': {17, 17, 17, 17, 17, 17, 14}, 'V': {17, 17, 17, 17, 17, 10, 4},
	'E': {31, 16, 16, 30, 16, 16, 31}, 'I': {14, 4, 4, 4, 4, 4, 14}, 'K': {17, 18, 20, 24, 20, 18, 17},
	'L': {16, 16, 16, 16, 16, 16, 31}, 'M': {17, 27, 21, 21, 17, 17, 17}, 'N': {17, 25, 21, 19, 17, 17, 17},
	'O': {14, 17, 17, 17, 17, 17, 14}, 'P': {30, 17, 17, 30, 16, 16, 16}, 'R': {30, 17, 17, 30, 20, 18, 17},
	'S': {15, 16, 16, 14, 1, 1, 30}, 'T': {31, 4, 4, 4, 4, 4, 4}, 'W': {17, 17, 17, 21, 21, 27, 17}, 'Y': {17, 17, 10, 4, 4, 4, 4},
}

// Advance is the width of a character with the gap after it.
const Advance = 6

// Text writes in capitals, which are all that the font has; x and y are the upper
// left corner. What it doesn't have is left blank.
func Text(img *image.RGBA, x, y int, text string, c color.Color) {
	for i, r := range text {
		for row, dots := range font[r] {
			for col := range 5 {
				if dots>>(4-col)&1 == 1 {
					img.Set(x+Advance*i+col, y+row, c)
				}
			}
		}
	}
}

// Has reports whether every character of a text can be written.
func Has(text string) bool {
	for _, r := range text {
		if _, ok := font[r]; !ok && r != ' ' {
			return false
		}
	}
	return true
}

// Save writes the picture into a PNG file.
func Save(img *image.RGBA, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		return fmt.Errorf("draw %s: %w", path, err)
	}
	return f.Close()
}
