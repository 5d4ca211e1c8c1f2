package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"dunnage/spec"
)

func (s *Server) routes() []route {
	return append(s.secretRoutes(), []route{
		{"GET /version", reads, s.version},
		{"GET /status", reads, s.status},
		{"GET /stats", reads, s.stats},
		{"POST /deploy", changes, s.deploy},
		{"POST /preview", reads, s.preview},
		{"POST /projects/{project}/change", changes, s.change},
		{"GET /projects/{project}/releases", reads, s.releases},
		{"GET /projects/{project}/receipts", reads, s.receipts},
		{"GET /operations/{id}", reads, s.operation},
		{"GET /events", reads, s.events},
		{"GET /logs", reads, s.logs},
		{"POST /exec", changes, s.exec},
		{"GET /images", reads, s.images},
		{"POST /images/pull", changes, s.pull},
		{"POST /images/load", changes, s.load},
		{"POST /images/load/room", changes, s.loadRoom},
		{"DELETE /images", changes, s.removeImage},
		{"GET /disk", reads, s.disk},
		{"GET /disk/collectable", reads, s.rehearse},
		{"POST /disk/collect", changes, s.collect},
		{"GET /networks", reads, s.networks},
		{"GET /rules", reads, s.rules},
		{"GET /doctor", reads, s.doctor},
		{"POST /doctor/fix", changes, s.fix},
		{"GET /explain", reads, s.explain},
	}...)
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, s.options.Version)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Status(r.Context())
	return reply(w, http.StatusOK, v, err)
}

func (s *Server) deploy(w http.ResponseWriter, r *http.Request) error {
	q, err := s.decodeDeploy(w, r, spec.AuditSet)
	if err != nil {
		return err
	}
	q.Owner = owner(r.Context())
	op, err := s.backend.Deploy(r.Context(), q)
	return reply(w, http.StatusAccepted, op, err)
}

func (s *Server) preview(w http.ResponseWriter, r *http.Request) error {
	q, err := s.decodeDeploy(w, r, spec.AuditCompare)
	if err != nil {
		return err
	}
	defer clearValues(q.Secrets)
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	v, err := s.backend.Preview(ctx, q)
	return reply(w, http.StatusOK, v, err)
}

// decodeDeploy reads a deploy with the values that it brings, which are for those
// only who may do with secrets what kind says.
func (s *Server) decodeDeploy(w http.ResponseWriter, r *http.Request, kind spec.AuditKind) (spec.DeployRequest, error) {
	var b deployBody
	if err := decode(w, r, &b); err != nil {
		return spec.DeployRequest{}, err
	}
	q := b.DeployRequest
	if q.Project.Name == "" {
		return q, invalid("project.name is missing")
	}
	if len(b.Values) == 0 {
		return q, nil
	}
	values := secretValues{Project: q.Project.Name, Values: b.Values}
	if err := s.mayManage(r, kind, values); err != nil {
		values.clear()
		if e := new(Error); errors.As(err, &e) && e.Kind == KindForbidden {
			e.Message = "the manifest brings values of secrets, and " + e.Message
			e.Hint += ", or let somebody who may set them, and declare them as external"
		}
		return q, err
	}
	q.Secrets = values.values()
	return q, nil
}

func (s *Server) change(w http.ResponseWriter, r *http.Request) error {
	var q spec.ChangeRequest
	if err := decode(w, r, &q); err != nil {
		return err
	}
	if q.Kind == "" {
		return invalid("kind is missing: scale, stop, start, restart, down, rollback, pause, resume or promote")
	}
	q.Owner = owner(r.Context())
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	op, err := s.backend.Change(ctx, r.PathValue("project"), q)
	return reply(w, http.StatusAccepted, op, err)
}

func (s *Server) releases(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Releases(r.Context(), r.PathValue("project"))
	return reply(w, http.StatusOK, list(v), err)
}

func (s *Server) receipts(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Receipts(r.Context(), r.PathValue("project"))
	return reply(w, http.StatusOK, list(v), err)
}

func (s *Server) operation(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Operation(r.Context(), r.PathValue("id"))
	return reply(w, http.StatusOK, v, err)
}

// logs streams lines without a limit on how slowly they may be taken: they
// come out of files, so a reader who paused holds up only this request.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	q, err := logRequest(r)
	if err != nil {
		return err
	}
	// Asked before the stream begins: an empty one would look like a project that wrote nothing.
	if _, err := s.backend.Releases(r.Context(), q.Project); err != nil {
		return err
	}
	st := newStream(w, 0)
	return st.run(r.Context(), func() error {
		return s.backend.Logs(r.Context(), q, func(l spec.LogLine) error { return st.send(messageLine, l) })
	})
}

func logRequest(r *http.Request) (q spec.LogRequest, err error) {
	var errs [5]error
	var tail int64
	q.Project, q.Grep = r.FormValue("project"), r.FormValue("grep")
	q.Services, q.Replicas = r.Form["service"], r.Form["replica"]
	tail, errs[0] = number(r, "tail", -1)
	q.Follow, errs[1] = truth(r, "follow", false)
	q.All, errs[2] = truth(r, "all", false)
	q.Since, errs[3] = moment(r, "since")
	q.Until, errs[4] = moment(r, "until")
	q.Tail = int(tail)
	if err := cmp.Or(errs[:]...); err != nil {
		return q, err
	}
	if _, err := q.Pattern(); err != nil {
		return q, invalid("grep: %v", err)
	}
	if q.Project == "" {
		return q, invalid("project is missing")
	}
	return q, nil
}

func (s *Server) images(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Images(r.Context())
	return reply(w, http.StatusOK, list(v), err)
}

func (s *Server) pull(w http.ResponseWriter, r *http.Request) error {
	var q pullRequest
	if err := decode(w, r, &q); err != nil {
		return err
	}
	if q.Ref == "" {
		return invalid("ref is missing")
	}
	st := newStream(w, s.options.Patience)
	return st.run(r.Context(), func() error {
		img, err := s.backend.Pull(r.Context(), q.Ref, func(p spec.PullProgress) {
			_ = st.send(messageProgress, p) // a client that is gone ends the pull through ctx
		})
		if err != nil {
			return err
		}
		return st.send(messageImage, img)
	})
}

// load reads the archive as it arrives: it may be larger than memory.
func (s *Server) load(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Load(r.Context(), r.Body)
	return reply(w, http.StatusOK, list(v), err)
}

func (s *Server) loadRoom(w http.ResponseWriter, r *http.Request) error {
	var q []spec.MissingBlob
	if err := decode(w, r, &q); err != nil {
		return err
	}
	note, err := s.backend.LoadRoom(r.Context(), q)
	return reply(w, http.StatusOK, loadRoom{Note: note}, err)
}

func (s *Server) removeImage(w http.ResponseWriter, r *http.Request) error {
	ref := r.FormValue("ref")
	if ref == "" {
		return invalid("ref is missing")
	}
	return reply(w, http.StatusOK, struct{}{}, s.backend.RemoveImage(r.Context(), ref))
}

func (s *Server) networks(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Networks(r.Context())
	return reply(w, http.StatusOK, list(v), err)
}

func (s *Server) rules(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Rules(r.Context())
	return reply(w, http.StatusOK, v, err)
}

// explain: ?asked=8080&project=NAME&from=ADDRESS.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) error {
	q := spec.ExplainRequest{Asked: r.FormValue("asked"), Project: r.FormValue("project")}
	if q.Asked == "" {
		return invalid("asked is missing: a port, an address or a service")
	}
	if from := r.FormValue("from"); from != "" {
		var err error
		if q.From, err = netip.ParseAddr(from); err != nil {
			return invalid("from=%q is not an address", from)
		}
	}
	v, err := s.backend.Explain(r.Context(), q)
	v.Ways = list(v.Ways)
	return reply(w, http.StatusOK, v, err)
}

func (s *Server) doctor(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Examine(r.Context(), false)
	return reply(w, http.StatusOK, list(v), err)
}

func (s *Server) fix(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	v, err := s.backend.Examine(ctx, true)
	return reply(w, http.StatusOK, list(v), err)
}

func invalid(format string, args ...any) error {
	return &Error{Message: "invalid request: " + fmt.Sprintf(format, args...), Kind: KindInvalid}
}

func tooLarge(limit int64) error {
	return &Error{Message: fmt.Sprintf("the request has more than %d bytes", limit), Kind: KindTooLarge}
}

// number reads an integer out of the query.
func number(r *http.Request, name string, otherwise int64) (int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, invalid("%s=%q is not a whole number", name, text)
	}
	return n, nil
}

// moment reads a time out of the query; none is zero.
func moment(r *http.Request, name string) (time.Time, error) {
	text := r.FormValue(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, invalid("%s=%q is not a time as RFC 3339 has it", name, text)
	}
	return t, nil
}

// decode reads exactly one JSON value with known fields only: a field that
// this agent doesn't know is a wish it would silently not fulfil.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return err
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJSON))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, extra := d.Token(); !errors.Is(extra, io.EOF) {
			err = errors.New("more follows after the JSON value")
		}
	}
	if err != nil {
		return decodeError(err)
	}
	// The server's wait for the client to go away must not run into the deadline.
	return rc.SetReadDeadline(time.Time{})
}

func decodeError(err error) error {
	var large *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &large):
		return tooLarge(large.Limit)
	case errors.As(err, &wrongType):
		return invalid("%s: a JSON %s where %s is expected", cmp.Or(wrongType.Field, "body"), wrongType.Value, wrongType.Type)
	case errors.Is(err, io.EOF):
		return invalid("the body is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("the JSON ends too early")
	case errors.Is(err, context.DeadlineExceeded):
		return invalid("the body didn't arrive within %s", bodyTimeout)
	}
	return invalid("%s", strings.TrimPrefix(err.Error(), "json: "))
}

// list makes an empty list JSON's [], not null: scripts range over it.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

// reply writes v, or hands err on.
func reply(w http.ResponseWriter, status int, v any, err error) error {
	if err != nil {
		return err
	}
	return writeJSON(w, status, v)
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, err = w.Write(append(b, '\n'))
	return err
}

// writeError answers with e. Nobody is left to tell if that fails.
func writeError(w http.ResponseWriter, e *Error) {
	_ = writeJSON(w, e.status(), e)
}

// truth reads a query parameter that is true or false.
func truth(r *http.Request, name string, otherwise bool) (bool, error) {
	v, err := strconv.ParseBool(cmp.Or(r.FormValue(name), strconv.FormatBool(otherwise)))
	if err != nil {
		return false, invalid("%s=%q: true or false", name, r.FormValue(name))
	}
	return v, nil
}
