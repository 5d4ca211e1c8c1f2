// Package api is the agent's HTTP interface over a unix socket: the types on
// the wire, the server in front of a Backend, and the client that the command
// line uses.
package api

import (
	"context"
	"io"

	"dunnage/spec"
)

// Backend is the agent behind the API. Errors are shown to
// people as they are; those that wrap spec.ErrNotFound, spec.ErrRefused or
// spec.ErrUnavailable stay apart on the wire (404, 409, 503); one with a
// Hint() string tells the next step too.
//
// The functions that Events, Logs and Pull are given write to the client: they
// may block for seconds, so they must be called with no lock held. Once one has
// returned an error, the client is gone. SecretAudit's doesn't block.
type Backend interface {
	// Deploy starts an operation and returns it at once; it goes on without ctx,
	// and with the values of secrets, which it takes over.
	Deploy(ctx context.Context, r spec.DeployRequest) (spec.Operation, error)
	// Change starts an operation on a deployed project and returns it at once.
	Change(ctx context.Context, project string, r spec.ChangeRequest) (spec.Operation, error)
	// Operation returns the operation as it is now.
	Operation(ctx context.Context, id string) (spec.Operation, error)
	// Preview says what Deploy would do, changing nothing.
	Preview(ctx context.Context, r spec.DeployRequest) (spec.Preview, error)

	// Status returns the last published snapshot; it never waits for containerd.
	Status(ctx context.Context) (spec.Status, error)
	// Stats says what runs and what it uses; it never waits for containerd.
	Stats(ctx context.Context) (spec.Stats, error)
	// Releases lists a project's kept releases, newest first.
	Releases(ctx context.Context, project string) ([]spec.Release, error)
	// Receipts lists a project's kept receipts, newest first.
	Receipts(ctx context.Context, project string) ([]spec.Receipt, error)
	// Events sends the kept events that r asks for and, with Follow, then new
	// ones, until ctx ends or send returns an error. An operation's events are kept until long
	// after its end, so following one never misses its outcome.
	Events(ctx context.Context, r spec.EventRequest, send func(spec.Event) error) error
	// Logs sends lines in order of time; with Follow until ctx ends.
	Logs(ctx context.Context, r spec.LogRequest, send func(spec.LogLine) error) error
	// Exec runs a command in a replica and returns its exit code.
	Exec(ctx context.Context, r spec.ExecRequest, stdin io.Reader, stdout, stderr io.Writer, resize <-chan [2]uint16) (int, error)

	Images(ctx context.Context) ([]spec.Image, error)
	Pull(ctx context.Context, ref string, progress func(spec.PullProgress)) (spec.Image, error)
	Load(ctx context.Context, archive io.Reader) ([]spec.Image, error)
	// LoadRoom makes room for a Load of an archive with these layers, or refuses it.
	// The note says what has been collected; empty = nothing had to be.
	LoadRoom(ctx context.Context, layers []spec.MissingBlob) (note string, err error)
	RemoveImage(ctx context.Context, ref string) error
	// DiskReport says what takes room on disk, and who needs it.
	DiskReport(ctx context.Context) (spec.DiskReport, error)
	// Collect removes what nobody needs, or, as a rehearsal, says what that is;
	// all: and images that were brought in the last day and never deployed.
	Collect(ctx context.Context, rehearse, all bool) (spec.Collection, error)

	// Secrets lists what is known of secrets beside their values; with a project
	// only its own.
	Secrets(ctx context.Context, project string) ([]spec.SecretStatus, spec.KeyStatus, error)
	// SetSecrets makes new versions, and starts operations that bring them to who
	// uses them. As with all values but Deploy's, the caller clears them afterwards.
	SetSecrets(ctx context.Context, r spec.SecretRequest) ([]spec.SecretChange, error)
	// RollbackSecret makes a kept version current; 0 is the one before the
	// current one.
	RollbackSecret(ctx context.Context, id spec.SecretID, version int, by spec.Actor) (spec.SecretChange, error)
	RemoveSecret(ctx context.Context, id spec.SecretID, by spec.Actor) error
	// CompareSecret reports whether value is the current one.
	CompareSecret(ctx context.Context, id spec.SecretID, value spec.SecretValue, by spec.Actor) (bool, error)
	// Unlock opens the secrets with a passphrase, or sets the first one.
	Unlock(ctx context.Context, passphrase spec.SecretValue, by spec.Actor) (spec.KeyStatus, error)
	// RotateKey changes the outer key, to passphrase where that is its source;
	// full: and the key of all values.
	RotateKey(ctx context.Context, passphrase spec.SecretValue, full bool, by spec.Actor) (spec.KeyStatus, error)
	// ResetKey gives up all secrets of a store whose key is lost, and makes a first
	// key, of passphrase where that is its source.
	ResetKey(ctx context.Context, passphrase spec.SecretValue, by spec.Actor) (spec.KeyStatus, error)
	// SecretAudit sends the entries from seq on, in order, those that there are.
	SecretAudit(ctx context.Context, seq uint64, send func(spec.AuditEntry) error) error
	// RefusedSecret notes an attempt that was refused for want of rights.
	RefusedSecret(ctx context.Context, kind spec.AuditKind, secret, why string, by spec.Actor)

	Networks(ctx context.Context) ([]spec.NetworkStatus, error)
	Rules(ctx context.Context) (spec.RuleSet, error)
	// Examine looks at the host within two seconds, whatever hangs there; with fix
	// it removes what belongs to nobody, which may take longer.
	Examine(ctx context.Context, fix bool) ([]spec.Finding, error)
	// Explain says what becomes of connections; it never waits for containerd.
	Explain(ctx context.Context, r spec.ExplainRequest) (spec.Explanation, error)
}
