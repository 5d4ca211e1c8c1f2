package api

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"dunnage/spec"
)

// rotateTimeout is for the sealing of all values anew, and of the file that they
// stand in, on a slow disk.
const rotateTimeout = 10 * time.Minute

// Secrets implements Backend.
func (c *Client) Secrets(ctx context.Context, project string) ([]spec.SecretStatus, spec.KeyStatus, error) {
	var v secretList
	err := c.get(ctx, "/secrets", url.Values{"project": {project}}, &v)
	return v.Secrets, v.Key, err
}

// SetSecrets implements Backend. Who asks is told by the kernel, not by r.
func (c *Client) SetSecrets(ctx context.Context, r spec.SecretRequest) (v []spec.SecretChange, err error) {
	err = c.post(ctx, "/secrets/set", secretValues{Project: r.Project, Values: revealed(r.Values), Keep: r.Keep}, &v)
	return v, err
}

// RollbackSecret implements Backend.
func (c *Client) RollbackSecret(ctx context.Context, id spec.SecretID, version int, _ spec.Actor) (v spec.SecretChange, err error) {
	err = c.post(ctx, "/secrets/rollback", secretVersion{id, version}, &v)
	return v, err
}

// RemoveSecret implements Backend.
func (c *Client) RemoveSecret(ctx context.Context, id spec.SecretID, _ spec.Actor) error {
	return c.post(ctx, "/secrets/remove", namedSecret{SecretID: id}, nil)
}

// CompareSecret implements Backend.
func (c *Client) CompareSecret(ctx context.Context, id spec.SecretID, value spec.SecretValue, _ spec.Actor) (bool, error) {
	var v comparison
	err := c.post(ctx, "/secrets/compare", namedSecret{SecretID: id, Value: value.Reveal()}, &v)
	return v.Equal, err
}

// Unlock implements Backend.
func (c *Client) Unlock(ctx context.Context, passphrase spec.SecretValue, _ spec.Actor) (v spec.KeyStatus, err error) {
	err = c.post(ctx, "/secrets/unlock", keyBody{Passphrase: passphrase.Reveal()}, &v)
	return v, err
}

// RotateKey implements Backend.
func (c *Client) RotateKey(ctx context.Context, passphrase spec.SecretValue, full bool, _ spec.Actor) (v spec.KeyStatus, err error) {
	err = c.postFor(ctx, rotateTimeout, "/secrets/rotate-key", keyBody{Passphrase: passphrase.Reveal(), Full: full}, &v)
	return v, err
}

// ResetKey implements Backend.
func (c *Client) ResetKey(ctx context.Context, passphrase spec.SecretValue, _ spec.Actor) (v spec.KeyStatus, err error) {
	err = c.postFor(ctx, rotateTimeout, "/secrets/reset-key", keyBody{Passphrase: passphrase.Reveal()}, &v)
	return v, err
}

// SecretAudit implements Backend. It asks for so many entries at a time as an
// answer has.
func (c *Client) SecretAudit(ctx context.Context, seq uint64, send func(spec.AuditEntry) error) error {
	for {
		var entries []spec.AuditEntry
		if err := c.get(ctx, "/secrets/audit", url.Values{"seq": {strconv.FormatUint(seq, 10)}}, &entries); err != nil {
			return err
		}
		for _, e := range entries {
			if err := send(e); err != nil {
				return err
			}
		}
		if len(entries) == 0 {
			return nil
		}
		seq = entries[len(entries)-1].Seq + 1
	}
}

// RefusedSecret implements Backend: it is the server that notes refusals.
func (c *Client) RefusedSecret(context.Context, spec.AuditKind, string, string, spec.Actor) {}
