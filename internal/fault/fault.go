// Package fault marks the points at which a crash of the agent would be felt:
// before and after every effect on the world outside. In a build with the tag
// "faults" the process kills itself at the point that a test names; in any
// other the functions here are empty and leave no code behind.
//
// A build with the tag is steered by the directory that the environment
// variable DUNNAGE_FAULT names:
//
//	at      where to die: "NAME before", "NAME after", either with "#K" for the
//	        K-th time that it is passed since the file was written, or "#N" for
//	        the N-th point of all
//	died    where the process died
//	boot    the kernel's boot id, so that an agent finds the machine rebooted
//
// Of these it fills in what is there:
//
//	passed      each point that is passed, one a line
//	goroutines  how many there were at the last one
//
// and by DUNNAGE_SABOTAGE, a list of lies separated by commas: "skip NAME" is an
// effect that is reported as done and isn't; other words mean what the place
// that asks for them does. They show that the tests would notice.
package fault

// The two points of an effect.
const (
	Before = "before"
	After  = "after"
)

// Do is effect between its two points. NAME is an object and what is done to
// it, such as "link add".
func Do(name string, effect func() error) error { return do(name, effect) }

// Point passes one point of an effect that isn't a function of its own.
func Point(name, when string) { point(name, when) }

// Sabotaged reports whether the lie is asked for.
func Sabotaged(name string) bool { return sabotaged(name) }

// Claim is what a test says instead of the truth, in the file of that name.
func Claim(name, truth string) string { return claim(name, truth) }
