package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/spec"
)

// Whoever is in the socket's group may list secrets; who may do more is for the
// group of secrets, where the host has one. The agent has a file of groups of its own.
func TestWhoMaySecrets(t *testing.T) {
	h := newHost(t)
	h.mustSet("token", "value-1")
	for _, dir := range []string{h.tools, filepath.Dir(h.lab.Dir), h.lab.Dir} { // of the program and of the socket
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// as is what a user in some groups gets.
	as := func(groups, stdin string, args ...string) result {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "setpriv", append([]string{"--reuid=12345", "--regid=12345", "--groups=" + groups, h.agent.Program}, args...)...)
		cmd.Dir, cmd.Stdin = "/", strings.NewReader(stdin)
		cmd.Env = []string{"DUNNAGE_HOST=" + h.agent.URL(), "PATH=" + os.Getenv("PATH")}
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	}
	restart := func(groups string) {
		t.Helper()
		killAgent(h)
		h.agent.Through = []string{"unshare", "--mount", "--propagation", "slave", "sh", "-c", "mount --bind \"$0\" /etc/group && exec \"$@\"", h.file("group", groups)}
		h.start()
	}

	restart("root:x:0:\ndunnage:x:12000:\n")
	h.refuses(as("12001", "", "secret", "ls"), 4, "permission denied")
	if r := as("12000", "value-2\n", "secret", "set", "token"); r.code != 0 {
		t.Errorf("in the socket's group, without one of secrets: %+v", r)
	}
	h.is("token", "value-2")

	restart("root:x:0:\ndunnage:x:12000:\ndunnage-secrets:x:12001:\n")
	if r := as("12000", "", "secret", "ls"); r.code != 0 || !strings.Contains(r.stdout, "token") {
		t.Errorf("secret ls: %+v", r)
	}
	if r := as("12000", "", "secret", "audit", "--verify"); r.code != 0 {
		t.Errorf("secret audit: %+v", r)
	}
	for _, args := range [][]string{{"secret", "set", "token"}, {"secret", "compare", "token"}, {"secret", "rm", "token"}, {"secret", "rollback", "token"}, {"secret", "rotate-key"}} {
		h.refuses(as("12000", "value-2\n", args...), 1, "uid 12345 may list secrets, but not change, compare or unlock them: it isn't in the group dunnage-secrets", "join the group dunnage-secrets")
	}
	h.refuses(as("12001", "", "secret", "ls"), 4, "permission denied") // the socket is for the other group
	if r := as("12000,12001", "value-3\n", "secret", "set", "token"); r.code != 0 {
		t.Errorf("in both groups: %+v", r)
	}
	h.is("token", "value-3")
	refused := map[spec.AuditKind]int{}
	for _, e := range h.audit() {
		if e.Refused != "" {
			if e.UID == nil || *e.UID != 12345 {
				t.Errorf("who was refused? %+v", e)
			}
			refused[e.Kind]++
		}
	}
	if len(refused) != 5 {
		t.Errorf("refusals in the audit: %v", refused)
	}
}
