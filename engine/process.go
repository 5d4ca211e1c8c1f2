package engine

import (
	"fmt"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dunnage/spec"
)

// defaultPath is Docker's PATH for images that set none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// argv joins entrypoint and command as Docker and Compose do: an entrypoint
// of the manifest also clears the image's command.
func argv(c spec.Container, image ocispec.ImageConfig) ([]string, error) {
	entrypoint, command := image.Entrypoint, image.Cmd
	if c.Entrypoint != nil {
		entrypoint, command = c.Entrypoint, nil
	}
	if c.Command != nil {
		command = c.Command
	}
	args := slices.Concat(entrypoint, command)
	if len(args) == 0 || args[0] == "" {
		return nil, fmt.Errorf("image %s has neither entrypoint nor command: set command: in the manifest: %w", c.Image, spec.ErrRefused)
	}
	return args, nil
}

// throughInit is how the program is started. The secret variables come last, so
// that no process has them that doesn't need them.
func throughInit(args []string, r spec.CreateRequest) []string {
	if r.Secrets.Env != "" {
		args = withSecretEnv(args)
	}
	if r.Container.Init {
		args = append([]string{initTarget, "init"}, args...)
	}
	if holdsInput(r.Container) {
		args = append([]string{initTarget, "stdin"}, args...)
	}
	return args
}

// holdsInput reports whether somebody must hold the standard input open: a
// terminal does it itself.
func holdsInput(c spec.Container) bool { return c.StdinOpen && !c.TTY }

// environment lets the manifest's variables replace the image's.
func environment(hostname string, image, manifest []string) []string {
	env := []string{defaultPath}
	if hostname != "" {
		env = setEnv(env, "HOSTNAME="+hostname)
	}
	for _, kv := range slices.Concat(image, manifest) {
		env = setEnv(env, kv)
	}
	return env
}

func setEnv(env []string, kv string) []string {
	key, _, _ := strings.Cut(kv, "=")
	for i, old := range env {
		if strings.HasPrefix(old, key+"=") {
			env[i] = kv
			return env
		}
	}
	return append(env, kv)
}

// workingDir is absolute; runc makes a missing one.
func workingDir(c spec.Container, image ocispec.ImageConfig) string {
	dir := c.WorkingDir
	if dir == "" {
		dir = image.WorkingDir
	}
	return path.Join("/", dir)
}

// stopSignal is the manifest's, the image's, or SIGTERM.
func stopSignal(c spec.Container, image ocispec.ImageConfig) string {
	for _, s := range []string{c.StopSignal, image.StopSignal} {
		if s != "" {
			return s
		}
	}
	return "SIGTERM"
}
