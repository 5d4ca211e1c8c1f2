package api

import (
	"context"
	"errors"
	"net/http"

	"dunnage/spec"
)

// Kind says what sort of error crossed the wire, so that a client can act on
// it without reading the text.
type Kind string

// The kinds of errors, each with its HTTP status.
const (
	KindInvalid      Kind = "invalid"        // 400: the request makes no sense
	KindForbidden    Kind = "forbidden"      // 403: this user may only read
	KindNotFound     Kind = "not-found"      // 404: spec.ErrNotFound
	KindNoSuchPath   Kind = "no-such-path"   // 404, but nothing that the agent keeps is missing
	KindNoSuchMethod Kind = "no-such-method" // 405
	KindRefused      Kind = "refused"        // 409: spec.ErrRefused
	KindTooLarge     Kind = "too-large"      // 413: the request exceeds its limit
	KindUnavailable  Kind = "unavailable"    // 503: spec.ErrUnavailable
	KindInternal     Kind = "internal"       // 500: everything else
)

// Errors of this package that a client can tell apart; the first two come from
// the agent, the third from the way to it.
var (
	ErrInvalid   = errors.New("invalid request")
	ErrForbidden = errors.New("not allowed")
	// ErrNoAgent: nobody answers at the address.
	ErrNoAgent = errors.New("no agent")
)

// kinds pairs what travels with what a caller acts on. The first match wins.
var kinds = []struct {
	kind   Kind
	status int
	is     error
}{
	{KindInvalid, http.StatusBadRequest, ErrInvalid},
	{KindForbidden, http.StatusForbidden, ErrForbidden},
	{KindNotFound, http.StatusNotFound, spec.ErrNotFound},
	{KindRefused, http.StatusConflict, spec.ErrRefused},
	{KindUnavailable, http.StatusServiceUnavailable, spec.ErrUnavailable},
	{KindUnavailable, http.StatusServiceUnavailable, context.DeadlineExceeded},
	{KindNoSuchPath, http.StatusNotFound, nil},
	{KindNoSuchMethod, http.StatusMethodNotAllowed, nil},
	{KindTooLarge, http.StatusRequestEntityTooLarge, nil},
	{KindInternal, http.StatusInternalServerError, nil},
}

// Error is the body of every answer that is not a success. errors.Is sees
// through it: an Error of kind not-found is spec.ErrNotFound.
type Error struct {
	Message string `json:"error"`
	Kind    Kind   `json:"kind"`
	Hint    string `json:"hint,omitempty"` // the next step, one line
}

func (e *Error) Error() string { return e.Message }

// Is lets an error keep its identity on the way through the wire.
func (e *Error) Is(target error) bool {
	for _, k := range kinds {
		if k.kind == e.Kind && k.is == target {
			return true
		}
	}
	return false
}

// status is the HTTP status of the error's kind.
func (e *Error) status() int {
	for _, k := range kinds {
		if k.kind == e.Kind {
			return k.status
		}
	}
	return http.StatusInternalServerError
}

// Hinter is implemented by errors that know the next step.
type Hinter interface {
	Hint() string
}

// wireError turns any error into the one that travels.
func wireError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Message: Text(err), Kind: e.Kind, Hint: e.Hint}
	}
	e = &Error{Message: Text(err), Kind: KindInternal}
	for _, k := range kinds {
		if k.is != nil && errors.Is(err, k.is) {
			e.Kind = k.kind
			break
		}
	}
	var h Hinter
	if errors.As(err, &h) {
		e.Hint = h.Hint()
	}
	return e
}

// Text is err for people, as spec.Text has it.
func Text(err error) string { return spec.Text(err, ErrInvalid) }
