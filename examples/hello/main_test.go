package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dunnage/test/load"
)

func get(t *testing.T, path string) (*http.Response, string) {
	t.Helper()
	s := httptest.NewServer(handler("web-1"))
	defer s.Close()
	resp, err := http.Get(s.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestHello(t *testing.T) {
	resp, body := get(t, "/")
	if body != "hello from web-1, version dev\n" || resp.Header.Get("X-Version") != "dev" || resp.Header.Get("X-Replica") != "web-1" {
		t.Errorf("%q, %v", body, resp.Header)
	}
	if resp, _ := get(t, "/nowhere"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// The load generator checks downloads against the same bytes.
func TestDownload(t *testing.T) {
	want := make([]byte, 300_000)
	load.Pattern(want, 0)
	begin := time.Now()
	_, body := get(t, "/download?bytes=300000")
	if body != string(want) {
		t.Errorf("%d bytes that differ from the pattern", len(body))
	}
	fast := time.Since(begin)
	if _, body = get(t, "/download?bytes=3000&rate=10000"); body != string(want[:3000]) {
		t.Errorf("paced: %d bytes that differ from the pattern", len(body))
	}
	if slow := time.Since(begin) - fast; slow < 250*time.Millisecond {
		t.Errorf("3000 bytes at 10000 a second took %v", slow)
	}
	if resp, body := get(t, "/download?bytes=-1"); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "numbers") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
}
