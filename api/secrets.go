package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"dunnage/spec"
)

func (s *Server) secretRoutes() []route {
	return []route{
		{"GET /secrets", reads, s.secrets},
		{"GET /secrets/audit", reads, s.secretAudit},
		{"POST /secrets/set", manages, manage(s, spec.AuditSet, s.setSecrets)},
		{"POST /secrets/rollback", manages, manage(s, spec.AuditRollback, s.rollbackSecret)},
		{"POST /secrets/remove", manages, manage(s, spec.AuditRemove, s.removeSecret)},
		{"POST /secrets/compare", manages, manage(s, spec.AuditCompare, s.compareSecret)},
		{"POST /secrets/unlock", manages, manage(s, spec.AuditUnlock, s.unlock)},
		{"POST /secrets/rotate-key", manages, manage(s, spec.AuditRotate, s.rotateKey)},
		{"POST /secrets/reset-key", manages, manage(s, spec.AuditReset, s.resetKey)},
	}
}

// secretBody is what a request about secrets says.
type secretBody interface {
	ids() []spec.SecretID // what it is about
	check() error         // whether it makes sense
	clear()               // overwrites the values in it
}

// manage makes a handler out of what is to be done for those who may, and
// overwrites the values when it is done.
func manage[B secretBody](s *Server, kind spec.AuditKind, do func(context.Context, B, spec.Actor) (any, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var b B
		err := decode(w, r, &b)
		defer func() { b.clear() }()
		if err != nil {
			return err
		}
		if err := s.mayManage(r, kind, b); err != nil {
			return err
		}
		v, err := do(r.Context(), b, actor(r.Context()))
		return reply(w, http.StatusOK, v, err)
	}
}

// mayManage checks what b says, and whether the peer may do that. What is refused
// for want of rights is noted in the audit record.
func (s *Server) mayManage(r *http.Request, kind spec.AuditKind, b secretBody) error {
	if err := b.check(); err != nil {
		return err
	}
	group := s.options.SecretsGroup
	if group < 0 {
		group = s.options.Group
	}
	p, ok := PeerFrom(r.Context())
	if ok && p.mayChange(group) {
		return nil
	}
	e := &Error{
		Message: fmt.Sprintf("uid %d may list secrets, but not change, compare or unlock them", p.Uid),
		Kind:    KindForbidden,
		Hint:    "run it as root",
	}
	if group >= 0 {
		name := groupName(group)
		e.Message += ": it isn't in the group " + name
		e.Hint += ", or join the group " + name
	}
	s.backend.RefusedSecret(r.Context(), kind, several(b.ids()), e.Message, actor(r.Context()))
	return e
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}

// maxNamed is how many secrets a refusal names.
const maxNamed = 5

// several names secrets in one line.
func several(ids []spec.SecretID) string {
	var names []string
	for _, id := range ids[:min(len(ids), maxNamed)] {
		names = append(names, id.String())
	}
	if more := len(ids) - maxNamed; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

func (s *Server) secrets(w http.ResponseWriter, r *http.Request) error {
	v, key, err := s.backend.Secrets(r.Context(), r.FormValue("project"))
	return reply(w, http.StatusOK, secretList{list(v), key}, err)
}

// maxEntries is how many audit entries an answer has. The reader goes on after
// them: a slow one must not hold up the store.
const maxEntries = 1000

var errEnough = errors.New("enough entries")

func (s *Server) secretAudit(w http.ResponseWriter, r *http.Request) error {
	seq, err := number(r, "seq", 1)
	if err != nil {
		return err
	}
	if seq < 1 {
		return invalid("seq=%d: entries are numbered from 1", seq)
	}
	var entries []spec.AuditEntry
	err = s.backend.SecretAudit(r.Context(), uint64(seq), func(e spec.AuditEntry) error {
		if entries = append(entries, e); len(entries) == maxEntries {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return reply(w, http.StatusOK, list(entries), err)
}

func (s *Server) setSecrets(ctx context.Context, b secretValues, by spec.Actor) (any, error) {
	if len(b.Values) == 0 {
		return nil, invalid("values is missing")
	}
	v, err := s.backend.SetSecrets(ctx, spec.SecretRequest{Project: b.Project, Values: b.values(), Keep: b.Keep, By: by})
	return list(v), err
}

func (s *Server) rollbackSecret(ctx context.Context, b secretVersion, by spec.Actor) (any, error) {
	return s.backend.RollbackSecret(ctx, b.SecretID, b.Version, by)
}

func (s *Server) removeSecret(ctx context.Context, b namedSecret, by spec.Actor) (any, error) {
	return struct{}{}, s.backend.RemoveSecret(ctx, b.SecretID, by)
}

func (s *Server) compareSecret(ctx context.Context, b namedSecret, by spec.Actor) (any, error) {
	equal, err := s.backend.CompareSecret(ctx, b.SecretID, spec.NewSecretValue(b.Value), by)
	return comparison{equal}, err
}

func (s *Server) unlock(ctx context.Context, b keyBody, by spec.Actor) (any, error) {
	return s.backend.Unlock(ctx, spec.NewSecretValue(b.Passphrase), by)
}

func (s *Server) rotateKey(ctx context.Context, b keyBody, by spec.Actor) (any, error) {
	return s.backend.RotateKey(ctx, spec.NewSecretValue(b.Passphrase), b.Full, by)
}

func (s *Server) resetKey(ctx context.Context, b keyBody, by spec.Actor) (any, error) {
	return s.backend.ResetKey(ctx, spec.NewSecretValue(b.Passphrase), by)
}

// The bodies of requests about secrets. Values are base64 here only:
// spec.SecretValue encodes itself as "[secret]".
type (
	deployBody struct {
		spec.DeployRequest
		Values map[string][]byte `json:"secrets,omitempty"`
	}
	secretValues struct {
		Project string            `json:"project,omitempty"`
		Values  map[string][]byte `json:"values"`
		Keep    int               `json:"keep,omitempty"`
	}
	namedSecret struct {
		spec.SecretID
		Value []byte `json:"value,omitempty"`
	}
	secretVersion struct {
		spec.SecretID
		Version int `json:"version,omitempty"` // 0 = the one before the current one
	}
	keyBody struct {
		Passphrase []byte `json:"passphrase,omitempty"`
		Full       bool   `json:"full,omitempty"`
	}
)

// The answers.
type (
	secretList struct {
		Secrets []spec.SecretStatus `json:"secrets"`
		Key     spec.KeyStatus      `json:"key"`
	}
	comparison struct {
		Equal bool `json:"equal"`
	}
)

func (b secretValues) ids() (ids []spec.SecretID) {
	for _, name := range slices.Sorted(maps.Keys(b.Values)) {
		ids = append(ids, spec.SecretID{Project: b.Project, Name: name})
	}
	return ids
}

func (b secretValues) check() error {
	for _, id := range b.ids() {
		if err := id.Check(); err != nil {
			return err
		}
		if err := spec.NewSecretValue(b.Values[id.Name]).Check(); err != nil {
			return fmt.Errorf("secret %s: %w", id, err)
		}
	}
	return nil
}

func (b secretValues) clear() {
	for _, v := range b.Values {
		clear(v)
	}
}

// values are the same bytes, not copies.
func (b secretValues) values() map[string]spec.SecretValue {
	out := make(map[string]spec.SecretValue, len(b.Values))
	for name, v := range b.Values {
		out[name] = spec.NewSecretValue(v)
	}
	return out
}

func (b namedSecret) ids() []spec.SecretID { return []spec.SecretID{b.SecretID} }

func (b namedSecret) check() error { return b.SecretID.Check() }

func (b namedSecret) clear() { clear(b.Value) }

func (b secretVersion) ids() []spec.SecretID { return []spec.SecretID{b.SecretID} }

func (b secretVersion) check() error {
	if b.Version < 0 {
		return invalid("version %d: versions are numbered from 1", b.Version)
	}
	return b.SecretID.Check()
}

func (secretVersion) clear() {}

// maxPassphrase is more than anybody types.
const maxPassphrase = 4096

func (keyBody) ids() []spec.SecretID { return nil }

func (b keyBody) check() error {
	if len(b.Passphrase) > maxPassphrase {
		return invalid("the passphrase is longer than %d bytes", maxPassphrase)
	}
	return nil
}

func (b keyBody) clear() { clear(b.Passphrase) }

func clearValues(values map[string]spec.SecretValue) {
	for _, v := range values {
		v.Clear()
	}
}

// revealed is how values travel: as base64, which encoding/json makes of bytes.
func revealed(values map[string]spec.SecretValue) map[string][]byte {
	out := make(map[string][]byte, len(values))
	for name, v := range values {
		out[name] = v.Reveal()
	}
	return out
}
