package engine

import (
	"cmp"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"dunnage/internal/regular"
	"dunnage/spec"
)

// logURI names the log writer and its arguments for the shim, which starts it.
func (e *Engine) logURI(k spec.ReplicaKey, image string, l spec.Logging) (string, error) {
	path := e.cfg.logPath(k)
	if err := regular.MkdirThrough(filepath.Dir(path), 0o711); err != nil {
		return "", fmt.Errorf("make log directory: %w", err)
	}
	q := url.Values{
		"path":  {path},
		"size":  {strconv.FormatInt(cmp.Or(l.MaxSize, e.cfg.Logs.MaxSize), 10)},
		"files": {strconv.Itoa(cmp.Or(l.MaxFile, e.cfg.Logs.MaxFile))},
		"gzip":  {string(cmp.Or(l.Compress, e.cfg.Logs.Compress, spec.On))},
	}
	if to := cmp.Or(l.Forward.To, e.cfg.Logs.Forward.To); to != "" {
		q.Set("forward", to)
		q.Set("tag", logTag(l.Forward.Tag, k, image))
		q.Set("project", k.Project)
		q.Set("service", k.Service)
		q.Set("facility", strconv.Itoa(facility(l.Forward.Facility)))
		q.Set("format", l.Forward.Format)
	}
	u := url.URL{Scheme: "binary", Path: e.cfg.LogBinary, RawQuery: q.Encode()}
	return u.String(), nil
}

// facility is its number; what it isn't is daemon's.
func facility(name string) int {
	if i := slices.Index(spec.SyslogFacilities, name); i >= 0 {
		return i
	}
	return slices.Index(spec.SyslogFacilities, "daemon")
}

// logTag fills in what Docker's templates name.
func logTag(tag string, k spec.ReplicaKey, image string) string {
	name := fmt.Sprintf("%s-%s-%d", k.Project, k.Service, k.Number)
	if tag == "" {
		return name
	}
	return strings.NewReplacer("{{.Name}}", name, "{{.ID}}", k.ID, "{{.FullID}}", k.ID, "{{.ImageName}}", image).Replace(tag)
}
