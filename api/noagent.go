package api

import "fmt"

// NoAgentError says where an agent was looked for, and why it wasn't found. It
// is ErrNoAgent.
type NoAgentError struct {
	Host  string
	Cause error
	Next  string // the next step
}

func (e *NoAgentError) Error() string {
	return fmt.Sprintf("no agent answers at %s: %v", e.Host, e.Cause)
}

// Hint implements Hinter.
func (e *NoAgentError) Hint() string { return e.Next }

// Unwrap returns the cause.
func (e *NoAgentError) Unwrap() error { return e.Cause }

// Is makes errors.Is(err, ErrNoAgent) true.
func (e *NoAgentError) Is(target error) bool { return target == ErrNoAgent }
