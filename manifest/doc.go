// Package manifest turns Compose files into a spec.Project, and a spec.Project
// back into a Compose file.
//
// A file goes through two passes. The first reads the YAML nodes, walks every
// key against the one table of this package (keys*.go) and checks every value
// by itself: unknown keys, keys that are refused, wrong types and bad values
// are all reported together, each with file, line and column. The second hands
// what is left to compose-go, which interpolates and merges exactly as Compose
// does, and turns the result into a spec.Project, checking what concerns
// several keys or services at once. docs/compose.md is generated from the same
// table, so that what is documented is what decides.
//
// The package is pure but for the files that Options names: no clock, no
// randomness, no environment of the process.
package manifest

//go:generate go test -run Docs -update .
