package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Metrics stand where Prometheus' tools look for them, to be read by everybody
// who can connect, and only if there are any.
func TestMetrics(t *testing.T) {
	ask := func(o Options, method string) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		NewServer(nil, o).handler().ServeHTTP(rec, httptest.NewRequest(method, "/metrics", nil))
		return rec
	}
	with := Options{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })}
	if r := ask(with, http.MethodGet); r.Code != http.StatusOK || r.Body.String() != "up 1\n" {
		t.Errorf("%d %q", r.Code, r.Body)
	}
	if r := ask(with, http.MethodPost); r.Code < 400 {
		t.Errorf("POST: %d", r.Code)
	}
	if r := ask(Options{}, http.MethodGet); r.Code != http.StatusNotFound || !strings.Contains(r.Body.String(), "doesn't know the path") {
		t.Errorf("without: %d %q", r.Code, r.Body)
	}
}
