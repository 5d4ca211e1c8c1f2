package manifest

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

func checkPullPolicy(v string) error {
	_, err := parsePullPolicy(v)
	return err
}

func parsePullPolicy(v string) (spec.PullPolicy, error) {
	switch {
	case v == "always":
		return spec.PullAlways, nil
	case v == "missing", v == "if_not_present":
		return spec.PullMissing, nil
	case v == "never", v == "build":
		return spec.PullNever, nil
	case v == "daily", v == "weekly", strings.HasPrefix(v, "every_"):
		return "", refuse("Write always and deploy when a new image is wanted", "only a deploy pulls, so %s can't be kept", clip(v))
	}
	return "", refuse("Write always, missing or never", "%q isn't a pull policy", clip(v))
}

// platformName is what an image index distinguishes.
var platformName = regexp.MustCompile(`^linux/[a-z0-9_]+(/[a-z0-9.]+)?$`)

func checkPlatform(v string) error {
	if !platformName.MatchString(v) {
		return refuse("Write it as linux/amd64 or linux/arm64/v8", "%q isn't a Linux platform", clip(v))
	}
	return nil
}

// image is the name to run, when to pull it and how to build it.
func (c *converter) image(name string, in types.ServiceConfig, command string) (image string, pull spec.PullPolicy, build string) {
	path := "services." + name
	built := in.Build != nil || command != ""
	image = in.Image
	pull, _ = parsePullPolicy(cmp.Or(in.PullPolicy, types.PullPolicyMissing)) // checked by the walk
	switch {
	case image != "":
	case in.Build != nil:
		image = c.name + "-" + strings.ToLower(name)
		if in.PullPolicy == "" {
			pull = spec.PullNever
		}
	case !slices.ContainsFunc([]string{".image", ".build", ".extends", ".provider"}, func(key string) bool { return c.report.below(path + key) }):
		c.failAt(refuse("Add image:", "the service has no image"), "services", name)
	}
	if in.PullPolicy == types.PullPolicyBuild && !built {
		c.failAt(refuse("Write never, or add build:", "there is nothing to build"), "services", name, "pull_policy")
	}
	if in.Build != nil && command == "" {
		command = c.buildCommand(name, image, in.Build)
	}
	return image, pull, command
}

// buildCommand is what a person types to build the image. What docker build
// has no plain option for is left to Compose, which reads it from the file.
func (c *converter) buildCommand(service, image string, b *types.BuildConfig) string {
	if !plainBuild(b) {
		return words("docker", "compose", "--project-directory", c.dir, "-p", c.name, "build", service)
	}
	args := []string{"docker", "build", "-t", image}
	if b.Dockerfile != "" && b.Dockerfile != "Dockerfile" {
		args = append(args, "-f", absolute(b.Context, b.Dockerfile))
	}
	for _, k := range sorted(b.Args) {
		kv := k
		if v := b.Args[k]; v != nil {
			kv += "=" + *v
		}
		args = append(args, "--build-arg", kv)
	}
	if b.Target != "" {
		args = append(args, "--target", b.Target)
	}
	return words(append(args, b.Context)...)
}

// plainBuild reports whether nothing but context, dockerfile, args and target
// shapes the image.
func plainBuild(b *types.BuildConfig) bool {
	return b.DockerfileInline == "" && b.Network == "" && len(b.SSH) == 0 && len(b.Secrets) == 0 &&
		len(b.AdditionalContexts) == 0 && len(b.Labels) == 0 && len(b.ExtraHosts) == 0 && len(b.Platforms) == 0 &&
		len(b.Entitlements) == 0 && len(b.Tags) == 0 && len(b.Ulimits) == 0 && b.ShmSize == 0 && !b.Privileged
}

// plainWord needs no quotes in a shell.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// words joins arguments so that a shell splits them the same way.
func words(args ...string) string {
	args = slices.Clone(args)
	for i, a := range args {
		if !plainWord.MatchString(a) {
			args[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(args, " ")
}
