package orchestrator

import (
	"context"
	"fmt"

	"dunnage/spec"
)

// saveAudited saves c together with the entries, which it dates and chains.
func (l *Loop) saveAudited(c spec.Commit, entries ...spec.AuditEntry) error {
	if len(entries) == 0 {
		return l.state.save(c)
	}
	l.auditing.Lock()
	defer l.auditing.Unlock()
	last := l.state.lastAudited()
	for _, e := range entries {
		e.At = l.cfg.Clock.Now()
		last = e.After(last)
		c.Audit = append(c.Audit, last)
	}
	return l.state.save(c)
}

// refuse notes an attempt that came to nothing, and returns its error.
func (l *Loop) refuse(e spec.AuditEntry, err error) error {
	e.Refused = plain(err)
	if saved := l.saveAudited(spec.Commit{}, e); saved != nil {
		l.cfg.Log.Error("audit a refused attempt", "kind", e.Kind, "secret", e.Secret, "error", saved)
	}
	return err
}

// RefusedSecret notes an attempt that the server refused for want of rights.
func (l *Loop) RefusedSecret(_ context.Context, kind spec.AuditKind, secret, why string, by spec.Actor) {
	_ = l.refuse(spec.AuditEntry{Kind: kind, Secret: secret, UID: by.UID, User: by.User}, fmt.Errorf("%s", why))
}

// SecretAudit sends the audit's entries from seq on.
func (l *Loop) SecretAudit(ctx context.Context, seq uint64, send func(spec.AuditEntry) error) error {
	return l.cfg.Store.Audit(seq, func(e spec.AuditEntry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return send(e)
	})
}
