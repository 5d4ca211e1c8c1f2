// Package rules turns a spec.Routing into the text of dunnage's netfilter
// rules and back. It is pure: the same routing gives the same bytes, and
// nothing here reads a clock, a random source or the kernel.
//
// The text has exactly the form that iptables-save prints, in both backends
// (nf_tables and legacy) and both families. That makes three things simple:
// drift is a comparison of strings, a change is the list of chains whose text
// differs, and a person can compare what `dunnage net rules` prints with what
// the kernel says. docs/rules.md explains the rules to operators.
//
// Caveat: the form was taken from iptables 1.8.9. If another version prints a
// rule differently, the comparison always differs and every Apply writes: slow,
// but never wrong. The round-trip tests in package netns show it.
package rules
