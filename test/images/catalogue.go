package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// searchPath is the PATH that official images set.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Versions are the versions that the examples' own programs are built in.
var Versions = []string{"v1", "v2"}

// Hello is examples/hello in one version: a static binary and nothing else.
func Hello(ctx context.Context, version string) (Image, error) {
	return goImage(ctx, "hello", "dunnage/examples/hello", version)
}

// App is the program of examples/stack in one version.
func App(ctx context.Context, version string) (Image, error) {
	return goImage(ctx, "stack-app", "dunnage/examples/stack/app", version)
}

func goImage(ctx context.Context, name, pkg, version string) (Image, error) {
	program, err := Program(ctx, pkg, version)
	if err != nil {
		return Image{}, err
	}
	layer, err := Files(File{Path: name, Mode: 0o755, Content: program})
	return Image{
		Ref:    "example.org/" + name + ":" + version,
		Layers: []v1.Layer{layer},
		Config: v1.Config{
			Entrypoint:   []string{"/" + name},
			Env:          []string{searchPath},
			ExposedPorts: map[string]struct{}{"80/tcp": {}},
		},
	}, err
}

// stackPackages is what the images of examples/stack share as their lowest layer.
var stackPackages = []string{"curl", "nginx-light", "postgresql-15", "redis-server"}

// Stack is nginx, redis and postgres for examples/stack, with entrypoints from
// dir (examples/stack/images) that have the habits of the official images.
func Stack(ctx context.Context, dir, cache string) ([]Image, error) {
	debian, err := Debian(ctx, cache, stackPackages...)
	if err != nil {
		return nil, err
	}
	configs := []struct {
		name, tag string
		config    v1.Config
		links     []File
	}{
		{"stack-nginx", "1", v1.Config{
			Cmd:          []string{"nginx", "-g", "daemon off;"},
			ExposedPorts: map[string]struct{}{"80/tcp": {}},
			StopSignal:   "SIGQUIT",
		}, []File{
			{Path: "var/log/nginx/access.log", Link: "/dev/stdout"},
			{Path: "var/log/nginx/error.log", Link: "/dev/stderr"},
		}},
		{"stack-redis", "7", v1.Config{
			Cmd:          []string{"redis-server"},
			Healthcheck:  &v1.HealthConfig{Test: []string{"CMD", "redis-cli", "ping"}, Interval: 5 * time.Second},
			ExposedPorts: map[string]struct{}{"6379/tcp": {}},
			Volumes:      map[string]struct{}{"/data": {}},
			WorkingDir:   "/data",
		}, nil},
		{"stack-postgres", "15", v1.Config{
			Cmd:          []string{"postgres"},
			Env:          []string{"PGDATA=/var/lib/postgresql/data"},
			ExposedPorts: map[string]struct{}{"5432/tcp": {}},
			StopSignal:   "SIGINT",
			Volumes:      map[string]struct{}{"/var/lib/postgresql/data": {}},
		}, nil},
	}
	var images []Image
	for _, c := range configs {
		script, err := os.ReadFile(filepath.Join(dir, c.name, "entrypoint.sh"))
		if err != nil {
			return nil, fmt.Errorf("read entrypoint of %s: %w", c.name, err)
		}
		own, err := Files(append(c.links, File{Path: "usr/local/bin/entrypoint.sh", Mode: 0o755, Content: script})...)
		if err != nil {
			return nil, err
		}
		c.config.Entrypoint = []string{"entrypoint.sh"}
		c.config.Env = append(c.config.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin")
		images = append(images, Image{Ref: "example.org/" + c.name + ":" + c.tag, Config: c.config, Layers: []v1.Layer{debian, own}})
	}
	return images, nil
}
