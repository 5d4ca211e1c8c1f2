package engine

import (
	"net/url"
	"testing"

	"dunnage/spec"
)

// TestLogURI: what a service sets wins over what the host's owner does, and
// that over the default.
func TestLogURI(t *testing.T) {
	k := spec.ReplicaKey{ID: "shop-web-1234-2", Project: "shop", Service: "web", Number: 2}
	for name, tc := range map[string]struct {
		host, service spec.Logging
		want          map[string]string
	}{
		"nothing": {want: map[string]string{"size": "10485760", "files": "3", "gzip": "on", "forward": "", "tag": ""}},
		"the host": {
			host: spec.Logging{MaxSize: 1 << 20, MaxFile: 7, Compress: spec.Off, Forward: spec.LogForward{To: spec.Journald}},
			want: map[string]string{"size": "1048576", "files": "7", "gzip": "off", "forward": "journald", "tag": "shop-web-2", "facility": "3", "project": "shop", "service": "web"},
		},
		"the service": {
			host:    spec.Logging{MaxSize: 1 << 20, Compress: spec.Off, Forward: spec.LogForward{To: spec.Journald}},
			service: spec.Logging{MaxSize: 2 << 20, Compress: spec.On, Forward: spec.LogForward{To: "udp://10.0.0.1:514", Tag: "{{.ImageName}} {{.Name}} {{.ID}} {{.FullID}}", Facility: "local3", Format: "rfc3164"}},
			want:    map[string]string{"size": "2097152", "gzip": "on", "forward": "udp://10.0.0.1:514", "tag": "example.org/web:1 shop-web-2 shop-web-1234-2 shop-web-1234-2", "facility": "19", "format": "rfc3164"},
		},
		"a tag alone": {
			host:    spec.Logging{Forward: spec.LogForward{To: spec.Journald}},
			service: spec.Logging{Forward: spec.LogForward{Tag: "mine"}},
			want:    map[string]string{"forward": "journald", "tag": "mine"},
		},
	} {
		e := &Engine{cfg: Config{StateDir: t.TempDir(), LogBinary: "/bin/dunnage-log", Logs: tc.host}.withDefaults()}
		text, err := e.logURI(k, "example.org/web:1", tc.service)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "binary" || u.Path != "/bin/dunnage-log" || u.Query().Get("path") != e.cfg.logPath(k) {
			t.Errorf("%s: %s, %v", name, text, err)
		}
		for key, want := range tc.want {
			if got := u.Query().Get(key); got != want {
				t.Errorf("%s: %s is %q, want %q", name, key, got, want)
			}
		}
	}
}
