package images

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// arch is what the images are built for: the machine they are built on.
func arch() string { return runtime.GOARCH }

// Program compiles package pkg of this module, in the current directory's
// module, into a static binary that says version.
func Program(ctx context.Context, pkg, version string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "dunnage-images-")
	if err != nil {
		return nil, fmt.Errorf("make folder for %s: %w", pkg, err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, msg)
	}
	return os.ReadFile(out)
}

// debianSuite is the Debian release that root file systems are made of.
const debianSuite = "bookworm"

// debianExcludes are files that no container needs. Without its llvmjit.so
// postgres leaves just-in-time compilation out, by design; LLVM is a third of
// the size.
var debianExcludes = []string{
	"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*",
	"/usr/lib/*/libLLVM*", "/usr/lib/postgresql/*/lib/llvmjit*", "/usr/lib/postgresql/*/lib/bitcode/*",
}

// Debian makes a layer that is a minimal Debian with the packages, from the
// archive that apt on this machine uses. It takes about 40 s; the result is
// kept in cache, under a name that hangs on the packages.
func Debian(ctx context.Context, cache string, packages ...string) (v1.Layer, error) {
	args := []string{"--variant=minbase", "--include=" + strings.Join(packages, ","),
		// A cluster made at install time would be in everybody's image.
		`--essential-hook=mkdir -p "$1/etc/postgresql-common"; echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"`}
	for _, x := range debianExcludes {
		args = append(args, "--dpkgopt=path-exclude="+x)
	}
	args = append(args, debianSuite, "-")
	sum := sha256.Sum256([]byte(strings.Join(args, "\x00") + arch()))
	path := filepath.Join(cache, "debian-"+hex.EncodeToString(sum[:6])+".tar.gz")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := bootstrap(ctx, path, args); err != nil {
			return nil, err
		}
	}
	return tarball.LayerFromFile(path, tarball.WithMediaType(types.OCILayer))
}

// bootstrap runs mmdebstrap and writes what it makes, compressed, to path.
func bootstrap(ctx context.Context, path string, args []string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".debian-")
	if err != nil {
		return fmt.Errorf("make root file system: %w", err)
	}
	defer os.Remove(f.Name()) // gone after the rename
	// Nobody ships these archives: speed matters more than size.
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("compress root file system: %w", err)
	}
	if err := errors.Join(mmdebstrap(ctx, z, args), z.Close(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func mmdebstrap(ctx context.Context, out io.Writer, args []string) error {
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Stdout, cmd.Stderr = out, &log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make root file system: mmdebstrap: %w\n%s", err, log.Bytes())
	}
	return nil
}
