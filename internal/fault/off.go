//go:build !faults

package fault

// On reports whether this build has fault points.
const On = false

func do(_ string, effect func() error) error { return effect() }
func point(_, _ string)                      {}
func sabotaged(string) bool                  { return false }
func claim(_, truth string) string           { return truth }
