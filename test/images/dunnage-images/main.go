// Command dunnage-images builds the images of the examples as archives for
// `dunnage image load`:
//
//	dunnage-images [-o build/images] hello stack
//
// writes hello-v1.tar and hello-v2.tar, and stack.tar (nginx, redis, postgres)
// with stack-app-v1.tar and stack-app-v2.tar. It is run from the checkout's root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"dunnage/test/images"
)

func main() {
	out := flag.String("o", "build/images", "folder for the archives")
	cache := flag.String("cache", "build/cache", "folder for root file systems that take long to make")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *out, *cache, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "dunnage-images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, cache string, names []string) error {
	for _, name := range names {
		var err error
		switch name {
		case "hello":
			err = programs(ctx, out, "hello", images.Hello)
		case "stack":
			err = stack(ctx, out, cache)
		default:
			err = fmt.Errorf("no images called %q: there are hello and stack", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// programs writes one archive a version.
func programs(ctx context.Context, out, name string, build func(context.Context, string) (images.Image, error)) error {
	for _, v := range images.Versions {
		img, err := build(ctx, v)
		if err != nil {
			return err
		}
		if err := images.Write(filepath.Join(out, name+"-"+v+".tar"), img); err != nil {
			return err
		}
	}
	return nil
}

func stack(ctx context.Context, out, cache string) error {
	imgs, err := images.Stack(ctx, "examples/stack/images", cache)
	if err != nil {
		return err
	}
	if err := images.Write(filepath.Join(out, "stack.tar"), imgs...); err != nil {
		return err
	}
	return programs(ctx, out, "stack-app", images.App)
}
