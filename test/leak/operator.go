package leak

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"dunnage/spec"
	"dunnage/test/lab"
)

// look asks all that can be asked.
func (d *Dunnage) look(ctx context.Context) error {
	c := d.files[0]
	if out, err := d.run(ctx, d.now[c.Name], nil, "secret", "compare", c.Name); err != nil || !strings.Contains(out, "equal") {
		return fmt.Errorf("compare: %q, %w", out, err)
	}
	if err := d.refused(ctx, "different", c.Values[2], nil, "secret", "compare", c.Name); err != nil {
		return err
	}
	if _, err := d.run(ctx, "", nil, "doctor"); err != nil && !strings.Contains(err.Error(), "status 3") { // others of the machine may be at fault
		return err
	}
	return d.must(ctx, "ps", "ps -a --json", "history -p files", "history -p env --json", "receipt -p files", "receipt -p env --json",
		"explain -p files many", "explain -p env half0 --json", "secret ls", "secret ls --json", "secret audit",
		"secret audit --json", "secret audit --verify", "logs -p files", "logs -p env",
		"net rules", "net rules --json", "net ls --json", "image ls --json", "config -f env.yaml", "plan -f env.yaml", "plan -f env.yaml --json", "version --json")
}

// fail makes the mistakes whose messages could tell a value.
func (d *Dunnage) fail(ctx context.Context) error {
	c := d.files[0]
	v := c.Values[1]
	long := strings.Repeat(v, spec.MaxSecret/len(v)+2)
	for _, s := range []struct {
		word, stdin string
		args        []string
	}{
		{"name", v, []string{"secret", "set", "not a name"}},
		{"longer", long, []string{"secret", "set", c.Name}},
		{"empty", "", []string{"secret", "set", c.Name}},
		{"used", "", []string{"secret", "rm", c.Name}},
		{"no =", v[:16] + "\n", []string{"secret", "set", "--from-env-file", "-"}},
		{"second time", c.Name + "=" + v + "\n" + c.Name + "=" + v + "\n", []string{"secret", "set", "--from-env-file", "-"}},
		{"quote", c.Name + "='" + v + "\n", []string{"secret", "set", "--from-env-file", "-"}},
		{"name of a secret", "?" + v + "=x\n", []string{"secret", "set", "--from-env-file", "-"}},
		{"nobody", v, []string{"secret", "rollback", "nobody"}},
	} {
		if err := d.refused(ctx, s.word, s.stdin, nil, s.args...); err != nil {
			return err
		}
	}
	// A value that no variable can hold.
	if _, err := d.run(ctx, v+"\x00"+v, nil, "-p", "bad", "secret", "set", "nul"); err != nil {
		return err
	}
	bad := func(text string) string { return "name: bad\nservices: {a: {image: \"" + imageName + "\"" + text }
	for i, s := range []struct{ word, text string }{
		{"NUL", bad(", x-dunnage: {secret_env: {NUL: nul}}}}")},
		{"absent", bad(", secrets: [absent]}}\nsecrets: {absent: {external: true}}")},
		{"UNSET", bad(", secrets: [x]}}\nsecrets: {x: {environment: UNSET}}")},
		{"nofile", bad(", secrets: [x]}}\nsecrets: {x: {file: ./nofile}}")},
		{"long", bad(", secrets: [x]}}\nsecrets: {x: {file: ./long}}")},
		{"on_secret_change", bad(", x-dunnage: {secret_env: {A: nul}, on_secret_change: none}}}")},
		{"PATH", bad(", environment: {PATH: x}, x-dunnage: {secret_env: {PATH: nul}}}}")},
	} {
		name := fmt.Sprintf("bad%d.yaml", i)
		if err := errors.Join(d.write(name, s.text), d.write("long", long)); err != nil {
			return err
		}
		if err := d.refused(ctx, s.word, "", []string{d.files[filesFile].Variable() + "=" + v}, "deploy", "-f", name); err != nil {
			return err
		}
	}
	// Releases that fail with the secrets in hand, and go back.
	if err := d.write("failing.yaml", d.envManifest("    command: [fail]\n    deploy: {update_config: {monitor: 5s}}\n")); err != nil {
		return err
	}
	if err := d.refused(ctx, "rolled back", "", nil, "deploy", "-f", "failing.yaml"); err != nil {
		return err
	}
	if err := d.refused(ctx, "", "", nil, "-p", "env", "exec", "half0", "/nothing"); err != nil {
		return err
	}
	if err := d.must(ctx, "down -p bad", "secret rm bad/nul"); err != nil {
		return err
	}
	return errors.Join(d.tidy(), d.badRequests(ctx, v))
}

// badRequests asks the API with values where none belong.
func (d *Dunnage) badRequests(ctx context.Context, v string) error {
	quoted, coded := jsonText(v, true), base64.StdEncoding.EncodeToString([]byte(v))
	for _, body := range []string{
		`{"values":{"x":"` + quoted + `"}}`, `{"values":{"x":["` + coded + `"]}}`, `{"values":"` + coded + `"}`,
		`{"values":{"x":"` + coded, coded, `{"values":{"-":"` + coded + `"}}`, `{"passphrase":"` + coded + `","full":"` + coded + `"}`,
	} {
		for _, path := range []string{"/secrets/set", "/secrets/compare", "/secrets/rollback", "/secrets/remove", "/secrets/unlock", "/secrets/rotate-key", "/deploy"} {
			status, answer, err := d.ask(ctx, "POST", path, body)
			if err != nil {
				return err
			}
			if status < 400 && path == "/secrets/set" {
				return fmt.Errorf("POST %s took %s", path, body)
			}
			d.Findings.Text(Answers, "answer to POST "+path, answer)
		}
	}
	return nil
}

// Gets are all that the API has.
var Gets = []string{
	"/version", "/status", "/projects/{project}/releases", "/projects/{project}/receipts", "/operations/{id}", "/events", "/logs", "/images",
	"/stats", "/disk", "/disk/collectable", "/networks", "/rules", "/explain", "/doctor", "/secrets", "/secrets/audit",
}

// asked are the requests that a scan makes of them.
func asked(get string) []string {
	switch get {
	case "/projects/{project}/releases", "/projects/{project}/receipts":
		var all []string
		for _, project := range []string{"files", "env", "plant"} {
			all = append(all, strings.Replace(get, "{project}", project, 1))
		}
		return all
	case "/explain": // its ways show rules, those of others too, and the replicas
		return []string{"/explain?asked=many&project=files", "/explain?asked=half0&project=env", "/explain?asked=a&project=plant"}
	case "/logs":
		return []string{"/logs?project=files", "/logs?project=env", "/logs?project=plant"}
	case "/operations/{id}":
		return []string{"/operations/nobody"}
	}
	return []string{get}
}

// ask makes a request and returns what comes within two seconds: streams don't end.
func (d *Dunnage) ask(ctx context.Context, method, path, body string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(d.Agent.URL(), "unix://"))
	}}}
	q, err := http.NewRequestWithContext(ctx, method, "http://agent/v1"+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r, err := client.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return r.StatusCode, b, err
}

// later gives canaries their next value.
func (d *Dunnage) later(version int, cs ...Canary) []Canary {
	for _, c := range cs {
		d.now[c.Name] = c.Values[version]
	}
	return cs
}

// every fifth canary has several values; these are some of each kind.
func (d *Dunnage) rotate(ctx context.Context) error {
	many := d.later(1, d.files[0], d.files[5], d.files[filesMany], d.files[filesMany+5], d.files[filesLive], d.files[filesMix])
	if _, err := d.run(ctx, d.envFile(many), nil, "secret", "set", "--from-env-file", "-"); err != nil {
		return err
	}
	if _, err := d.run(ctx, d.envFile(d.later(1, d.env[0], d.env[55])), nil, "-p", "env", "secret", "set", "--from-env-file", "-"); err != nil {
		return err
	}
	d.later(1, d.files[filesConf], d.files[filesFile])
	if err := d.deployFiles(ctx, "files.yaml"); err != nil {
		return err
	}
	if err := d.delivered(ctx); err != nil {
		return err
	}
	if _, err := d.run(ctx, d.envFile(d.later(2, d.files[0])), nil, "secret", "set", "--from-env-file", "-", "--json"); err != nil {
		return err
	}
	d.later(1, d.files[0])
	if err := d.must(ctx, "secret rollback "+d.files[0].Name); err != nil {
		return err
	}
	if err := d.delivered(ctx); err != nil {
		return err
	}
	// To the releases before, with what they had, and forward by a deploy.
	if err := d.must(ctx, "-p env rollback", "-p env restart half1", "deploy -f env.yaml"); err != nil {
		return err
	}
	if err := d.deployFiles(ctx, "files.yaml", "--force"); err != nil {
		return err
	}
	return d.delivered(ctx)
}

// agent ends the agent in each of the ways that there are.
func (d *Dunnage) agent(ctx context.Context) error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGQUIT} {
		if sig == syscall.SIGQUIT {
			// In the middle of a delivery: the runtime writes all stacks into the log, and
			// aborts by GOTRACEBACK=crash, as what leaves a core file.
			if _, err := d.run(ctx, d.envFile(d.later(2, d.files[5], d.files[10])), nil, "secret", "set", "--detach", "--from-env-file", "-"); err != nil {
				return err
			}
		}
		pid := d.Agent.Lab.Pid("agent")
		if err := syscall.Kill(pid, sig); err != nil {
			return err
		}
		err := lab.Await(ctx, 30*time.Second, func() error {
			if d.Agent.Lab.Pid("agent") != 0 {
				return errors.New("the agent is still there")
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := d.Agent.Start(ctx); err != nil {
			return err
		}
	}
	return d.delivered(ctx)
}

func (d *Dunnage) keys(ctx context.Context) error {
	db := d.Agent.Lab.Path("state", "dunnage.db")
	copyTo := func(name string) error {
		b, err := os.ReadFile(db)
		if err == nil {
			err = os.WriteFile(d.Agent.Lab.Path(name), b, 0o600)
		}
		return err
	}
	if err := copyTo("before.db"); err != nil {
		return err
	}
	if err := d.must(ctx, "secret rotate-key", "secret rotate-key --full"); err != nil {
		return err
	}
	if _, err := d.run(ctx, d.envFile(d.later(2, d.env[5])), nil, "-p", "env", "secret", "set", "--from-env-file", "-"); err != nil {
		return err
	}
	return errors.Join(copyTo("after.db"), d.look(ctx), d.delivered(ctx))
}
