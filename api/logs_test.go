package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// TestLogRequest: every field of a request arrives, and the agent does the
// choosing.
func TestLogRequest(t *testing.T) {
	w := newWorld(t)
	deploy(t, w.client, shop())
	noon := time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)
	for i, text := range []string{"early", "ERROR one", "fine", "ERROR two", "ERROR three", "late ERROR"} {
		w.fake.AddLine(spec.LogLine{Service: "web", At: noon.Add(time.Duration(i)), Text: []byte(text)})
	}
	var got []string
	r := spec.LogRequest{Project: "shop", Tail: 2, Since: noon.Add(1), Until: noon.Add(4), Grep: "^ERROR"}
	err := w.client.Logs(t.Context(), r, func(l spec.LogLine) error {
		got = append(got, string(l.Text))
		return nil
	})
	if text := strings.Join(got, ", "); err != nil || text != "ERROR two, ERROR three" {
		t.Errorf("%s, %v", text, err)
	}
}

func TestBadLogRequests(t *testing.T) {
	w := newWorld(t)
	deploy(t, w.client, shop())
	for query, want := range map[string]string{
		"since=yesterday":                     "since",
		"until=1":                             "until",
		"all=perhaps":                         "all",
		"grep=(":                              "missing closing",
		"grep=" + strings.Repeat("x", 2000):   "may have 1000",
		"project=&grep=x":                     "project is missing",
		"tail=many&follow=true":               "tail",
		"since=2026-11-22T12:00:00Z&follow=x": "follow",
	} {
		if !strings.Contains(query, "project") {
			query = "project=shop&" + query
		}
		status, body := w.raw(t, http.MethodGet, "/v1/logs?"+query, "")
		if status != http.StatusBadRequest || !strings.Contains(body, want) {
			t.Errorf("%.40s: %d %s", query, status, body)
		}
	}
}
