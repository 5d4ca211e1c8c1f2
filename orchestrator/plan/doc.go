// Package plan decides. Make compares what releases declare (Desired) with
// what is (Observed) and returns what to do next (Plan); Routes says where
// connections go; Describe tells it to people. All of it is pure: the clock,
// digests, failures and what the kernel's rules say are inputs, so a plan can
// be printed, compared and thrown away.
//
// An action that needs the effect of another isn't planned before that effect
// has been observed. There is no memory of plans: after a crash the next look
// plans the same.
//
// The order that keeps connections whole is held by two rules, each in one
// place: routes change to a new generation only when enough of it is usable
// (view.backends), and a process is only signalled when no rule names it and
// its old connections are gone or out of time (builder.retire).
package plan
