package inside

import (
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// ExecMark is the variable that marks an exec's process and what it starts.
const ExecMark = "DUNNAGE_EXEC"

// AddEnv becomes argv, with the variables of a file added to the environment.
// They are secret: nothing that it writes has anything of them. It returns an
// exit code if it can't.
func AddEnv(file string, argv []string) int {
	if os.Getpid() == 1 {
		// The kernel keeps from a first process what it has no handler for, and
		// Go's own handler ends it. With this one signals are lost, as they are
		// on the program itself at its beginning; exec takes it away.
		signal.Notify(make(chan os.Signal, 1))
	}
	path, err := LookPath(argv[0])
	if err != nil {
		return refuse(argv[0], err)
	}
	env, err := environ(file)
	if err != nil {
		return complain(err)
	}
	return refuse(argv[0], syscall.Exec(path, argv, env))
}

// environ is this process's environment with the variables of a file, or of none.
func environ(file string) ([]string, error) {
	if file == "" {
		return os.Environ(), nil
	}
	env, err := withVariables(os.Environ(), file)
	if err != nil {
		return nil, errors.New("read the secret variables: " + err.Error())
	}
	return env, nil
}

// withVariables adds those of the file, entries NAME=VALUE that each end with
// NUL, in place of what has their names.
func withVariables(env []string, file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil || len(b) == 0 {
		return env, err
	}
	text, whole := strings.CutSuffix(string(b), "\x00")
	added := strings.Split(text, "\x00")
	names := make(map[string]bool, len(added))
	for _, kv := range added {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" || !whole {
			return nil, errors.New(file + " is malformed: the agent writes it anew before each start")
		}
		names[name] = true
	}
	env = slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return names[name]
	})
	return append(env, added...), nil
}
