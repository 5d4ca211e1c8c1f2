package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"dunnage/spec"
)

// An explanation comes through the wire as it was made; what can't be asked is
// told before the agent looks.
func TestExplain(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	r := spec.ExplainRequest{Asked: "8080", From: netip.MustParseAddr("203.0.113.9")}
	got, err := w.client.Explain(t.Context(), r)
	if err != nil || !got.OK || len(got.Ways) != 1 || got.Ways[0].Packet.Source != r.From || got.Ways[0].Reach[0].Replica == "" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := w.client.Explain(t.Context(), spec.ExplainRequest{Asked: "nobody"}); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("%v", err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", w.socket)
	}
	raw := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	for query, want := range map[string]string{"": "asked is missing", "asked=80&from=here": "not an address"} {
		resp, err := raw.Get("http://agent/v1/explain?" + query)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), want) {
			t.Errorf("%q: %s %s, %v", query, resp.Status, b, err)
		}
	}
}
