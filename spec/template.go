package spec

import (
	"bytes"
	"regexp"
	"slices"
)

// place is where a config has a secret: {{ secret "NAME" }}. Nothing else
// between braces is looked at, since configs have templates of their own.
var place = regexp.MustCompile(`\{\{-?\s*secret\s+"([^"]*)"\s*-?\}\}`)

// nearPlace is how a place begins, and what somebody probably meant as one.
var nearPlace = regexp.MustCompile("\\{\\{-?\\s*secret(?:[\\s\"'`]|-?\\}\\})")

// FaultyPlaces are the lines, from 1, where something begins as a place for a
// secret does and is none.
func FaultyPlaces(content []byte) []int {
	good := map[int]bool{} // where places begin
	for _, at := range place.FindAllIndex(content, -1) {
		good[at[0]] = true
	}
	var lines []int
	for _, at := range nearPlace.FindAllIndex(content, -1) {
		if !good[at[0]] {
			lines = append(lines, 1+bytes.Count(content[:at[0]], []byte("\n")))
		}
	}
	return slices.Compact(lines)
}

// TemplateNames lists the secrets that a config has places for, sorted.
func TemplateNames(content []byte) []string {
	var names []string
	for _, m := range place.FindAllSubmatch(content, -1) {
		names = append(names, string(m[1]))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// FillTemplate puts the values in their places, as they are.
func FillTemplate(content []byte, value func(name string) SecretValue) SecretValue {
	return NewSecretValue(place.ReplaceAllFunc(content, func(m []byte) []byte {
		return value(string(place.FindSubmatch(m)[1])).Reveal()
	}))
}
