package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"dunnage/spec"
)

// Secrets come to a container by bind mounts of what the deliverer writes before
// each start, and as variables through dunnage-init, which reads them there.
// Nothing that the engine, containerd or the runtime keeps has more of them
// than paths.

// envTarget is where a container has the file with its secret variables: in the
// root directory, as dunnage-init and for its reason.
const envTarget = "/.dunnage-env"

// secretMounts lists the mounts of a replica's secrets. A file with a place of
// its own may be a script, so that it stays executable.
func secretMounts(r spec.CreateRequest) ([]specs.Mount, error) {
	var out []specs.Mount
	bind := func(source, target string, options ...string) {
		options = append([]string{"bind", "rprivate", "ro", "nosuid", "nodev"}, options...)
		out = append(out, specs.Mount{Destination: target, Type: "bind", Source: source, Options: options})
	}
	if r.Secrets.Dir != "" {
		bind(r.Secrets.Dir, spec.SecretDir, "noexec")
	}
	for _, target := range slices.Sorted(maps.Keys(r.Secrets.Files)) {
		bind(r.Secrets.Files[target], path.Clean(target))
	}
	if r.Secrets.Env != "" {
		bind(r.Secrets.Env, envTarget, "noexec")
	}
	for _, m := range r.Container.Mounts {
		target := path.Clean(m.Target)
		if slices.ContainsFunc(out, func(s specs.Mount) bool { return s.Destination == target }) {
			return nil, fmt.Errorf("mount at %s: the service has secrets there: mount elsewhere, or give the secrets another target: %w", target, spec.ErrRefused)
		}
	}
	return out, nil
}

// secretSources lists what a start needs on the host.
func secretSources(p spec.SecretPaths) []string {
	var out []string
	for _, source := range append(slices.Sorted(maps.Values(p.Files)), p.Dir, p.Env) {
		if source != "" {
			out = append(out, source)
		}
	}
	return out
}

// checkSecrets is a word before the runtime's, which would name a mount.
func checkSecrets(sources []string) error {
	for _, source := range sources {
		if _, err := os.Lstat(source); err != nil {
			return fmt.Errorf("its secrets are not delivered: %w; the agent writes them before each start: if something empties its run directory, stop that", err)
		}
	}
	return nil
}

// withSecretEnv has dunnage-init add the secret variables and become args.
func withSecretEnv(args []string) []string {
	return append([]string{initTarget, "env", envTarget}, args...)
}

func hasSecretEnv(s *specs.Spec) bool {
	return slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == envTarget })
}

// readsFileOf reports whether a process may read a file that only its owner may.
// A command that somebody runs as another user does without the secrets, which
// aren't that user's.
func readsFileOf(p *specs.Process, owner uint32) bool {
	return p.User.UID == owner || p.User.UID == 0 && slices.Contains(p.Capabilities.Bounding, "CAP_DAC_OVERRIDE")
}

// User is the user that the container's process is started as.
func (e *Engine) User(ctx context.Context, id string) (uid, gid uint32, err error) {
	c, err := e.client.ContainerService().Get(ctx, id)
	if err != nil {
		return 0, 0, e.wrap(ctx, err, "find the user of %s", id)
	}
	var s struct { // the rest is large
		Process *struct{ User *specs.User }
	}
	if err := json.Unmarshal(c.Spec.GetValue(), &s); err != nil {
		return 0, 0, fmt.Errorf("find the user of %s: read its runtime specification: %w", id, err)
	}
	if s.Process == nil || s.Process.User == nil {
		return 0, 0, fmt.Errorf("find the user of %s: its runtime specification names none: remove it (ctr containers rm) and deploy again", id)
	}
	return s.Process.User.UID, s.Process.User.GID, nil
}
