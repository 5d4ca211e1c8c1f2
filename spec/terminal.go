package spec

import "io"

// Terminal is the user's side of an exec. Stdin may be nil.
type Terminal struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan [2]uint16 // rows, columns
}
