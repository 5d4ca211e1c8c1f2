// Package leak looks for secrets where they don't belong. It gives known random
// values to a container engine as an operator does, and then searches everything
// that the engine leaves on disk, prints or starts for them, in the forms that a
// value takes on its way. The same scan runs over dunnage and its peers.
package leak

import (
	"crypto/rand"
	"fmt"
	"math/big"
)

// A Canary is a secret that must be found nowhere.
type Canary struct {
	Column string   // who got it, and how: the column of the table
	Name   string   // of the secret
	Values []string // its versions: what it is set to first, and later
}

// Variable is its name as an environment variable.
func (c Canary) Variable() string { return "CANARY_" + c.Name }

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// special are characters that JSON and URLs write in their own way.
const special = ` "\<&%+/é=>`

// NewCanaries makes n secrets called prefix000 and so on. Each value is random
// letters, with a special character after every fourth in its middle: no 16 bytes
// of it, or of what it is encoded to, occur by chance, or are another's as well.
// Every fifth has three values, to be set one after the other.
func NewCanaries(column, prefix string, n int) []Canary {
	all := make([]Canary, n)
	for i := range all {
		all[i] = Canary{Column: column, Name: fmt.Sprintf("%s%03d", prefix, i), Values: []string{newValue()}}
		if i%5 == 0 {
			all[i].Values = append(all[i].Values, newValue(), newValue())
		}
	}
	return all
}

func newValue() string {
	value := random(20)
	for _, c := range special {
		value += random(4) + string(c)
	}
	return value + random(20)
}

func random(n int) string {
	b := make([]byte, n)
	for i := range b {
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil { // the kernel has no randomness
			panic(err)
		}
		b[i] = letters[k.Int64()]
	}
	return string(b)
}
