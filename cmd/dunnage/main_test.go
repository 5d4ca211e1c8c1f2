package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"dunnage/api"
	"dunnage/api/apitest"
	"dunnage/spec"
)

// TestMain lets the scripts run this binary as dunnage. Its clock stands where
// the fake agent's does.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"dunnage": func() {
			if at := os.Getenv("DUNNAGE_TEST_NOW"); at != "" {
				os.Exit(runAt(at))
			}
			os.Exit(runMain())
		},
		// It isn't ended after a while, as the agent isn't.
		"dunnage-agent": func() { os.Exit(runMain(func(p *program) { p.serves.Store(true) })) },
	})
}

// runAt is runMain with a clock that stands still and, if the script asks, a
// terminal of a given width at standard output.
func runAt(at string) int {
	now, err := time.Parse(time.RFC3339, at)
	if err != nil {
		panic(err)
	}
	clock := func(p *program) {
		p.now = func() time.Time { return now }
		if w := os.Getenv("DUNNAGE_TEST_WIDTH"); w != "" {
			p.terminal.stdout = true
			p.terminal.width, _ = strconv.Atoi(w)
		}
	}
	return runMain(clock)
}

func TestScripts(t *testing.T) {
	spec := readSchema(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Setup: func(e *testscript.Env) error {
			e.Values[schemaKey{}] = spec
			return setup(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agent":  controlAgent,
			"status": wantStatus,
			"json":   wantJSON,
		},
	})
}

type (
	fakeKey   struct{}
	schemaKey struct{}
)

// setup starts a fake agent in this process, on a socket of the script's own.
func setup(e *testscript.Env) error {
	dir, err := os.MkdirTemp("", "dunnage-cli") // $WORK is too long for a socket
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, "agent.sock")
	l, err := api.Listen(socket, -1)
	if err != nil {
		return err
	}
	fake := apitest.New()
	s := api.NewServer(fake, api.Options{Group: -1, SecretsGroup: -1, Version: api.Version{Version: "9.8.7", Go: "go1.0"}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	e.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-served, os.RemoveAll(dir)); err != nil {
			panic(err)
		}
	})
	e.Values[fakeKey{}] = fake
	e.Setenv("DUNNAGE_HOST", "unix://"+socket)
	e.Setenv("SOCKET", socket)
	e.Setenv("EMPTY", dir) // a directory with no manifest in it or above
	e.Setenv("DUNNAGE_TEST_NOW", fake.Now.Format(time.RFC3339))
	return nil
}

// controlAgent is the script command that makes the fake misbehave, or prints
// it to agent.txt.
func controlAgent(ts *testscript.TestScript, neg bool, args []string) {
	f := ts.Value(fakeKey{}).(*apitest.Fake)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: agent WHAT [TEXT...]")
	}
	text := strings.Join(args[1:], " ")
	switch args[0] {
	case "refuse":
		f.RefuseNext(fmt.Errorf("%s: %w", text, spec.ErrRefused))
	case "fail":
		f.FailNext(unquote(ts, text))
	case "mute": // another one, which takes connections and answers none
		l, err := net.Listen("unix", filepath.Join(ts.Getenv("EMPTY"), "mute.sock"))
		ts.Check(err)
		ts.Defer(func() { _ = l.Close() }) // nobody waits for it
	case "hold":
		f.Hold()
	case "release":
		f.Release()
	case "detail":
		f.SetDetail(args[1], args[2], unquote(ts, strings.Join(args[3:], " ")))
	case "trial":
		f.SetTrial(args[1], args[2], 1)
	case "log":
		f.AddLine(spec.LogLine{At: f.Now, Service: args[1], Replica: args[2], Stream: "stdout", Text: []byte(unquote(ts, strings.Join(args[3:], " ")))})
	case "part":
		f.AddLine(spec.LogLine{At: f.Now, Service: args[1], Replica: args[2], Stream: "stdout", Partial: true, Text: []byte(strings.Join(args[3:], " "))})
	case "use": // a secret by services
		f.UseSecret(secretOf(args[1]), args[2:]...)
	case "behind": // a project that runs another version of a secret
		version, err := strconv.Atoi(args[3])
		ts.Check(err)
		f.LeaveBehind(secretOf(args[1]), spec.SecretUse{Project: args[2], Version: version})
	case "lock":
		f.LockSecrets(text)
	case "losekey":
		f.LoseKey()
	case "movekey":
		f.MoveKey(text)
	case "misskey":
		f.MissKey(text)
	case "spoil":
		f.SpoilAudit(1)
	case "rules":
		f.SetRules(spec.RuleSet{Rendered: "*nat\n-A A\n-A B\nCOMMIT\n", Kernel: "*nat\n-A A\n-A C\nCOMMIT\n", Held: text})
	case "nofindings":
		f.SetFindings()
	case "findings": // of the host
		f.SetFindings(
			spec.Finding{Check: "containerd", OK: true, Text: "the agent's own containerd 2.2.0 answers a write in 1.5ms"},
			spec.Finding{Check: "clock", OK: true, Warn: true, Text: "nobody keeps the clock right", Next: "install chrony"},
			spec.Finding{
				Check: "leftovers", Text: "writable layer of shop-web-0123abcd-1: nobody owns it",
				Next: "`dunnage doctor --fix` removes it", Fix: "writable layer of shop-web-0123abcd-1",
			})
	case "receipt": // the newest one of a project tells of a bad night
		f.ChangeReceipt(args[1], func(r *spec.Receipt) {
			r.Owner, r.Cut, r.Secrets = "alice", 1, map[string]int{"shop/token": 17}
			r.Interrupted = r.Started.Add(time.Second)
			r.Visits[0].Failed, r.Visits[0].Reasons = 3, map[string]int{"connection refused": 2, "no answer within 1s": 1}
		})
	case "awaitcall":
		await(ts, f, text)
	case "print":
		out := f.String() + strings.Join(f.Calls(), "\n") + "\n"
		ts.Check(os.WriteFile(ts.MkAbs("agent.txt"), []byte(out), 0o600))
	default:
		ts.Fatalf("agent: what is %s?", args[0])
	}
}

func secretOf(name string) spec.SecretID {
	if project, name, ok := strings.Cut(name, "/"); ok {
		return spec.SecretID{Project: project, Name: name}
	}
	return spec.SecretID{Name: name}
}

// wantJSON checks what the command before printed: json TYPE, of package spec.
func wantJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: json TYPE")
	}
	if problems := ts.Value(schemaKey{}).(schema).checkOutput(ts.ReadFile("stdout"), args[0]); len(problems) > 0 {
		ts.Fatalf("%s", strings.Join(problems, "\n"))
	}
}

func unquote(ts *testscript.TestScript, text string) string {
	out, err := strconv.Unquote(`"` + text + `"`)
	ts.Check(err)
	return out
}

// await waits until the agent got a call that starts with text.
func await(ts *testscript.TestScript, f *apitest.Fake, text string) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, c := range f.Calls() {
			if strings.HasPrefix(c, text) {
				return
			}
		}
	}
	ts.Fatalf("the agent got no call %q, only %v", text, f.Calls())
}

// wantStatus runs dunnage and checks its exit code, which `! exec` doesn't:
// status CODE ARG... Output goes to stdout.txt and stderr.txt.
func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE ARG...")
	}
	// sh gets the arguments as its own: none of them is read as shell.
	script := `dunnage "$@" >stdout.txt 2>stderr.txt </dev/null; echo $? >code.txt`
	ts.Check(ts.Exec("sh", append([]string{"-c", script, "sh"}, args[1:]...)...))
	code := strings.TrimSpace(ts.ReadFile("code.txt"))
	if code != args[0] {
		ts.Fatalf("dunnage %s: exit code %s, want %s\nstdout: %sstderr: %s", strings.Join(args[1:], " "), code, args[0], ts.ReadFile("stdout.txt"), ts.ReadFile("stderr.txt"))
	}
}
