package spec

import (
	"regexp"
	"slices"
)

// place is where a config has a secret: {{ secret "NAME" }}. Nothing else
// between braces is looked at, since configs have templates of their own.
var place = regexp.MustCompile(`\{\{-?\s*secret\s+"([^"]*)"\s*-?\}\}`)

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
