package leak

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dunnage/test/images"
	"dunnage/test/lab"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Columns of the table that are ours, and the one of the saboteur: a value that is
// no secret, put into each place.
const (
	OurFiles = "dunnage, files"
	OurEnv   = "dunnage, environment"
	Planted  = "planted"
)

// Secrets is how many each column has.
const Secrets = 100

// imageName is the image with package keeper.
const imageName = "example.org/" + Program + ":v1"

// WriteImage writes its archive.
func WriteImage(ctx context.Context, path string) error {
	program, err := images.Program(ctx, "dunnage/test/leak/keeper", "v1")
	if err != nil {
		return err
	}
	layer, err := images.Files(images.File{Path: Program, Mode: 0o755, Content: program}, images.File{Path: "tmp/empty", Mode: 0o644})
	if err != nil {
		return err
	}
	return images.Write(path, images.Image{Ref: imageName, Layers: []v1.Layer{layer}, Config: v1.Config{Entrypoint: []string{"/" + Program}, Cmd: []string{"serve"}}})
}

// Dunnage does with secrets what operators do, and collects where they are found.
type Dunnage struct {
	Agent    lab.Agent // running
	Archive  string    // of WriteImage
	Findings *Findings
	Took     []string // how long each part took
	Said     []string // what each command printed, its beginning

	files, env []Canary
	plant      Canary
	now        map[string]string // the current values by name
	procs      *Processes
	begun      time.Time
}

// NewDunnage scans for what Run does with the agent.
func NewDunnage(a lab.Agent, archive string) *Dunnage {
	d := &Dunnage{Agent: a, Archive: archive, now: map[string]string{}, begun: time.Now().Add(-time.Second)}
	d.files, d.env = NewCanaries(OurFiles, "f", Secrets), NewCanaries(OurEnv, "e", Secrets)
	d.plant = NewCanaries(Planted, "p", 1)[0]
	d.Findings = NewFindings(slices.Concat(d.files, d.env, []Canary{d.plant}))
	for _, c := range slices.Concat(d.files, d.env) {
		d.now[c.Name] = c.Values[0]
	}
	return d
}

// How the secrets of the column of files come to their service.
const (
	filesMany = 40 // to service many, each in /run/secrets
	filesLive = 55 // up to here to service live, swapped while it runs
	filesMix  = 75 // up to here to service mix, in the long form
	filesConf = 90 // up to here to mix, in a config
	filesFile = 95 // up to here to mix, from files beside the manifest; the others from the environment
)

// dir is where the operator's files are: what stays there is counted.
func (d *Dunnage) dir() string { return d.Agent.Lab.Path("operator") }

// Run does everything. The values have been delivered where it returns nil.
func (d *Dunnage) Run(ctx context.Context) error {
	if err := os.MkdirAll(d.dir(), 0o700); err != nil {
		return err
	}
	// No limit shall be why a killed agent leaves no core file.
	d.Agent.Through = []string{"prlimit", "--core=unlimited", "--"}
	d.Agent.Env = append(d.Agent.Env, "GOTRACEBACK=crash")
	d.procs = Watch(ctx, d.Findings)
	defer d.procs.Stop()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"set and deploy", d.deploy}, {"look", d.look}, {"fail", d.fail}, {"rotate", d.rotate}, {"agent", d.agent},
		{"keys", d.keys}, {"plant", d.plantAll}, {"scan", d.scan}, {"remove", d.remove},
	} {
		begun := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		d.Took = append(d.Took, fmt.Sprintf("%s %.1fs", step.name, time.Since(begun).Seconds()))
	}
	for _, program := range []string{"dunnage", "dunnage-log", ".dunnage-init", "containerd-shim-runc-v2", Program} {
		if !d.procs.Saw(program) {
			return fmt.Errorf("no process of %s was seen", program)
		}
	}
	return d.Findings.Err()
}

// run runs a verb and looks through what it printed.
func (d *Dunnage) run(ctx context.Context, stdin string, env []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.Agent.Program, args...)
	cmd.Dir = d.dir()
	cmd.Env = append(append(os.Environ(), "DUNNAGE_HOST="+d.Agent.URL()), env...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := d.procs.start(cmd); err != nil {
		return "", err
	}
	err := d.procs.done(cmd)
	d.Findings.Text(Answers, "output of dunnage "+strings.Join(args, " "), out.Bytes())
	d.Said = append(d.Said, fmt.Sprintf("%s dunnage %s\n%.2000s", time.Now().UTC().Format("15:04:05.000"), strings.Join(args, " "), out.Bytes()))
	if err != nil {
		err = fmt.Errorf("dunnage %s: %w\n%s", strings.Join(args, " "), err, out.Bytes())
	}
	return out.String(), err
}

// must runs verbs that have to succeed, each without an environment and input.
func (d *Dunnage) must(ctx context.Context, lines ...string) error {
	for _, l := range lines {
		if _, err := d.run(ctx, "", nil, strings.Fields(l)...); err != nil {
			return err
		}
	}
	return nil
}

// refused runs a verb that has to fail with a word in what it says.
func (d *Dunnage) refused(ctx context.Context, word, stdin string, env []string, args ...string) error {
	out, err := d.run(ctx, stdin, env, args...)
	if err == nil || !strings.Contains(out, word) {
		return fmt.Errorf("dunnage %s should fail with %q: %v\n%s", strings.Join(args, " "), word, err, out)
	}
	return nil
}

func (d *Dunnage) write(name, text string) error {
	return os.WriteFile(filepath.Join(d.dir(), name), []byte(text), 0o600)
}

// envFile is KEY=VALUE lines of the current values.
func (d *Dunnage) envFile(cs []Canary) string {
	var b strings.Builder
	for _, c := range cs {
		fmt.Fprintf(&b, "%s=%s\n", c.Name, d.now[c.Name])
	}
	return b.String()
}

func (d *Dunnage) deploy(ctx context.Context) error {
	if _, err := d.run(ctx, "", nil, "image", "load", d.Archive); err != nil {
		return err
	}
	if err := d.write("many.env", d.envFile(d.files[:filesConf-2])); err != nil {
		return err
	}
	if err := d.must(ctx, "secret set --from-env-file many.env"); err != nil {
		return err
	}
	one, two := d.files[filesConf-2], d.files[filesConf-1]
	if _, err := d.run(ctx, d.now[one.Name]+"\n", nil, "secret", "set", one.Name); err != nil {
		return err
	}
	if err := d.write("one", d.now[two.Name]); err != nil {
		return err
	}
	if err := d.must(ctx, "secret set --from-file one "+two.Name); err != nil {
		return err
	}
	if _, err := d.run(ctx, d.envFile(d.env), nil, "-p", "env", "secret", "set", "--from-env-file", "-"); err != nil {
		return err
	}
	if err := errors.Join(d.write("files.yaml", d.filesManifest("")), d.write("env.yaml", d.envManifest(""))); err != nil {
		return err
	}
	if err := d.deployFiles(ctx, "files.yaml"); err != nil {
		return err
	}
	if err := d.must(ctx, "deploy -f env.yaml"); err != nil {
		return err
	}
	return errors.Join(d.tidy(), d.delivered(ctx))
}

// deployFiles deploys with the files and variables that the manifest names, and
// takes the files away again.
func (d *Dunnage) deployFiles(ctx context.Context, manifest string, args ...string) error {
	var env []string
	for i, c := range d.files[filesConf:] {
		if filesConf+i >= filesFile {
			env = append(env, c.Variable()+"="+d.now[c.Name])
		} else if err := d.write(c.Name+".txt", d.now[c.Name]); err != nil {
			return err
		}
	}
	for _, verb := range []string{"config", "plan", "deploy"} {
		args := append([]string{verb, "-f", manifest}, args...)
		if verb != "deploy" {
			args = args[:3]
		}
		if out, err := d.run(ctx, "", env, args...); err != nil {
			return err
		} else if verb == "config" && !strings.Contains(out, d.files[0].Name) {
			return fmt.Errorf("the configuration doesn't name the secrets:\n%s", out)
		}
	}
	for _, c := range d.files[filesConf:filesFile] {
		if err := os.Remove(filepath.Join(d.dir(), c.Name+".txt")); err != nil {
			return err
		}
	}
	return nil
}

// filesManifest delivers as files; more stands in service many.
func (d *Dunnage) filesManifest(more string) string {
	var b strings.Builder
	b.WriteString("name: files\nservices:\n  many:\n    image: " + imageName + "\n    init: true\n    stop_grace_period: 1s\n    user: \"1000:1000\"\n" + more + "    secrets:\n")
	for _, c := range d.files[:filesMany] {
		b.WriteString("      - " + c.Name + "\n")
	}
	b.WriteString("  live:\n    image: " + imageName + "\n    stop_grace_period: 1s\n    x-dunnage: {on_secret_change: signal:HUP}\n    secrets:\n")
	for _, c := range d.files[filesMany:filesLive] {
		b.WriteString("      - " + c.Name + "\n")
	}
	b.WriteString("  mix:\n    image: " + imageName + "\n    stop_grace_period: 1s\n    read_only: true\n")
	b.WriteString("    healthcheck: {test: [CMD, /keeper, check], interval: 1s}\n    configs: [{source: conf, target: /etc/app.conf}]\n    secrets:\n")
	for _, c := range d.files[filesLive:filesMix] {
		fmt.Fprintf(&b, "      - {source: %s, target: /etc/app/%s, uid: \"7\", gid: \"8\", mode: 0440}\n", c.Name, c.Name)
	}
	for _, c := range d.files[filesConf:] {
		b.WriteString("      - " + c.Name + "\n")
	}
	b.WriteString("configs:\n  conf:\n    content: |\n")
	for _, c := range d.files[filesMix:filesConf] {
		fmt.Fprintf(&b, "      %s={{ secret %q }}\n", c.Name, c.Name)
	}
	b.WriteString("secrets:\n")
	for i, c := range d.files {
		switch {
		case i < filesConf:
			fmt.Fprintf(&b, "  %s: {external: true}\n", c.Name)
		case i < filesFile:
			fmt.Fprintf(&b, "  %s: {file: ./%s.txt}\n", c.Name, c.Name)
		default:
			fmt.Fprintf(&b, "  %s: {environment: %s}\n", c.Name, c.Variable())
		}
	}
	return b.String()
}

// envManifest delivers as variables, to two services.
func (d *Dunnage) envManifest(more string) string {
	var b strings.Builder
	b.WriteString("name: env\nservices:\n")
	for i, half := range [][]Canary{d.env[:Secrets/2], d.env[Secrets/2:]} {
		fmt.Fprintf(&b, "  half%d:\n    image: %s\n    stop_grace_period: 1s\n    init: %v\n%s", i, imageName, i == 0, more)
		b.WriteString("    healthcheck: {test: [CMD, /keeper, check], interval: 1s}\n    x-dunnage:\n      secret_env:\n")
		for _, c := range half {
			fmt.Fprintf(&b, "        %s: %s\n", c.Variable(), c.Name)
		}
	}
	return b.String()
}

// delivered waits until the programs have the current values, by their hashes: a
// scan of what was never given finds nothing. A replica that has been replaced may
// live for its grace period still.
func (d *Dunnage) delivered(ctx context.Context) error {
	return lab.Await(ctx, time.Minute, func() error { return d.haveAll(ctx) })
}

func (d *Dunnage) haveAll(ctx context.Context) error {
	have := map[string]string{}
	sums := func(project, service string, files ...string) error {
		out, err := d.run(ctx, "", nil, append([]string{"-p", project, "exec", service, "/keeper", "sums"}, files...)...)
		for line := range strings.Lines(out) {
			if name, sum, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
				have[name] = sum
			}
		}
		return err
	}
	mix := []string{"/etc/app.conf"}
	want := map[string]string{}
	conf := ""
	for i, c := range d.files {
		switch v := d.now[c.Name]; {
		case i >= filesMix && i < filesConf:
			conf += c.Name + "=" + v + "\n"
		case i >= filesLive && i < filesMix:
			mix = append(mix, "/etc/app/"+c.Name)
			want["/etc/app/"+c.Name] = v
		default:
			want["/run/secrets/"+c.Name] = v
		}
	}
	want["/etc/app.conf"] = conf
	for _, c := range d.env {
		want["$"+c.Variable()] = d.now[c.Name]
	}
	err := errors.Join(sums("files", "many"), sums("files", "live"), sums("files", "mix", mix...), sums("env", "half0"), sums("env", "half1"))
	for name, value := range want {
		sum := sha256.Sum256([]byte(value))
		if err == nil && have[name] != hex.EncodeToString(sum[:]) {
			err = fmt.Errorf("%s isn't the current value in the container", name)
		}
	}
	return err
}
