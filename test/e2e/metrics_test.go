package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/test/lab"
)

const metricsFile = `
disk: {budget: 20G}
metrics: {listen: "127.0.0.1:9477"}
`

const watchedFile = `
name: shop
services:
  web:
    image: example.org/hello:%s
    ports: ["8080:80"]
    deploy: {replicas: 2, resources: {limits: {cpus: "0.5", memory: 64M, pids: 50}}}
    x-dunnage: {probe: {http: {port: 80, path: /healthz}}}
`

// packaged is a file of packaging/.
func packaged(t *testing.T, parts ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(append([]string{"..", "..", "packaging"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// expressions are those of the dashboard and of the alerts, by where they stand.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	b, err := os.ReadFile(packaged(t, "grafana", "dunnage.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID         string
		Annotations struct{ List []struct{ Name, Expr string } }
		Panels      []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$project", ".*", "$service", ".*", "$instance", ".*", "$__rate_interval", "1m")
	ids := map[int]bool{}
	for i, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q isn't placed as Grafana wants it", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, q := range board.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q overlap", p.Title, q.Title)
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			out[p.Title+" "+target.RefID] = variables.Replace(target.Expr)
		}
	}
	for _, a := range board.Annotations.List {
		if a.Expr != "" {
			out[a.Name] = variables.Replace(a.Expr)
		}
	}
	rules, err := os.ReadFile(packaged(t, "prometheus", "dunnage.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)- alert: (\S+)\n\s+expr: (.*)$`).FindAllSubmatch(rules, -1) {
		out[string(m[1])] = string(m[2])
	}
	if len(out) < 60 {
		t.Fatalf("only %d expressions were found", len(out))
	}
	return out
}

// A real Prometheus scrapes the agent and knows every metric that the dashboard
// and the alerts ask for.
func TestMetricsForPrometheus(t *testing.T) {
	h := newBareHost(t)
	h.agent.Flags = append(h.agent.Flags, "--config", h.file("config.yaml", metricsFile))
	h.start()
	if err := h.agent.LoadImages(t.Context(), h.tools, "hello-v1", "hello-v2"); err != nil {
		t.Fatal(err)
	}
	h.mustDeploy(fmt.Sprintf(watchedFile, "v1"))
	h.mustDeploy(fmt.Sprintf(watchedFile, "v2"))

	text := h.onSocket()
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if code := h.statusOf("http://127.0.0.1:9477/v1/status"); code != "404" {
		t.Errorf("beside metrics, the port answers %s", code)
	}

	h.startPrometheus()
	h.eventually(time.Minute, "Prometheus has scraped it", func() error {
		if n := h.query(`count_over_time(up{job="dunnage"}[1m]) >= 4 and up == 1`); n == 0 {
			return fmt.Errorf("not yet")
		}
		if n := h.query("dunnage_target_reachable == 1 and on () dunnage_disk_counted_bytes > 0 and on() dunnage_containerd_up"); n == 0 {
			return fmt.Errorf("it isn't asked or counted yet")
		}
		return nil
	})
	names := regexp.MustCompile(`\b(?:dunnage|process|go)_[a-z_]+`)
	asked := map[string]bool{}
	for where, expr := range expressions(t) {
		h.query(expr)
		for _, name := range names.FindAllString(expr, -1) {
			if !asked[name] && h.query(fmt.Sprintf("{__name__=%q}", name)) == 0 {
				t.Errorf("%s asks for %s, of which there is nothing", where, name)
			}
			asked[name] = true
		}
	}
	if len(asked) < 50 {
		t.Errorf("only %d metrics are asked for", len(asked))
	}
	for _, expr := range []string{
		`dunnage_service_replicas_ready{project="shop",service="web"} == 2`, `dunnage_replica_memory_bytes{replica="2"} > 1e5`,
		`dunnage_operations_total{project="shop",kind="deploy",outcome="done"} == 2`, `dunnage_conntrack_entries_limit > 0`,
		`dunnage_disk_budget_bytes == 20 * 1024 ^ 3`, `dunnage_replica_memory_limit_bytes{replica="1"} == 64 * 1024 ^ 2`, `dunnage_visits_total{service="web"} > 0`,
	} {
		if h.query(expr) == 0 {
			t.Errorf("not so: %s\n%s", expr, h.onSocket())
		}
	}
}

// The port of the metrics is somebody else's: everything but them works, and
// doctor says so.
func TestMetricsPortInUse(t *testing.T) {
	h := newBareHost(t)
	h.agent.Flags = append(h.agent.Flags, "--config", h.file("config.yaml", metricsFile))
	if err := h.lab.Start("other", nil, "socat", "TCP-LISTEN:9477,bind=127.0.0.1,fork", "/dev/null"); err != nil {
		t.Fatal(err)
	}
	h.eventually(10*time.Second, "the port is taken", func() error {
		_, err := lab.Output(t.Context(), h.lab.OnHost("sh", "-c", "ss -Hltn 'sport = :9477' | grep -q .")...)
		return err
	})
	h.start()
	h.eventually(10*time.Second, "doctor tells", func() error {
		if out := h.run(nil, "doctor").stdout; !strings.Contains(out, "metrics aren't served on 127.0.0.1:9477") {
			return fmt.Errorf("doctor says %s", out)
		}
		return nil
	})
	if !strings.Contains(h.onSocket(), "dunnage_build_info") {
		t.Error("the socket doesn't answer either")
	}
	if err := h.lab.Stop(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	h.eventually(30*time.Second, "metrics are served once the port is free", func() error {
		if code := h.statusOf("http://127.0.0.1:9477/metrics"); code != "200" {
			return fmt.Errorf("status %s", code)
		}
		return nil
	})
}

// promtool knows the alerts, and each fires where it should.
func TestAlerts(t *testing.T) {
	testenv.Root(t) // where Debian's packages are
	rules, tests := packaged(t, "prometheus", "dunnage.rules.yml"), packaged(t, "prometheus", "dunnage.test.yml")
	for _, args := range [][]string{{"check", "rules", rules}, {"test", "rules", tests}} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	b, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	tested, err := os.ReadFile(tests)
	if err != nil {
		t.Fatal(err)
	}
	// The last test has what each alert asks for, and none may be even pending.
	_, well, _ := strings.Cut(string(tested), "- name: nothing is wrong")
	names := regexp.MustCompile(`\b(?:dunnage|process)_[a-z_]+`)
	for _, m := range regexp.MustCompile(`- alert: (\S+)\n\s+expr: (.*)\n`).FindAllSubmatch(b, -1) {
		if fires := fmt.Sprintf(`labels: 'ALERTS{alertname="%s",alertstate="firing"`, m[1]); !strings.Contains(string(tested), fires) {
			t.Errorf("no test makes %s fire", m[1])
		}
		for _, name := range names.FindAllString(string(m[2]), -1) {
			if !strings.Contains(well, "'"+name+"{") {
				t.Errorf("that %s doesn't fire where %s is as it should be isn't tested", m[1], name)
			}
		}
	}
}

// onSocket is what the agent's socket answers.
func (h *host) onSocket() string {
	h.t.Helper()
	out, err := lab.Output(h.t.Context(), "curl", "-sSf", "--unix-socket", strings.TrimPrefix(h.agent.URL(), "unix://"), "http://agent/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *host) statusOf(address string) string {
	out, _ := lab.Output(h.t.Context(), h.lab.OnHost("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", address)...) // 000 where nobody listens
	return out
}

func (h *host) startPrometheus() {
	h.t.Helper()
	config := h.file("prometheus.yml", fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: dunnage
    static_configs: [{targets: ["127.0.0.1:9477"]}]
`, packaged(h.t, "prometheus", "dunnage.rules.yml")))
	if err := h.lab.Start("prometheus", nil, "prometheus", "--config.file="+config, "--storage.tsdb.path="+h.t.TempDir(), "--web.listen-address=127.0.0.1:9090"); err != nil {
		h.t.Fatal(err)
	}
	h.eventually(30*time.Second, "Prometheus answers", func() error {
		if code := h.statusOf("http://127.0.0.1:9090/-/ready"); code != "200" {
			return fmt.Errorf("status %s", code)
		}
		return nil
	})
}

// query asks Prometheus and returns how many series the answer has.
func (h *host) query(expr string) int {
	h.t.Helper()
	out, err := lab.Output(h.t.Context(), h.lab.OnHost("curl", "-sS", "http://127.0.0.1:9090/api/v1/query?query="+url.QueryEscape(expr))...)
	if err != nil {
		h.t.Fatal(err)
	}
	var answer struct {
		Status, Error string
		Warnings      []string
		Data          struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Status != "success" || len(answer.Warnings) > 0 {
		h.t.Fatalf("%s: %v %s", expr, err, out)
	}
	return len(answer.Data.Result)
}
