package main

import (
	"errors"
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	app := newProgram().app()
	for give, want := range map[string]string{
		"logs web -f":                     "logs --follow -- web",
		"-f a.yaml logs -f web":           "--file=a.yaml logs --follow -- web",
		"logs --file a.yaml web --follow": "--file=a.yaml logs --follow -- web",
		"ps -f a.yaml -f b.yaml":          "--file=a.yaml --file=b.yaml ps",
		"deploy -fa.yaml -pshop":          "--file=a.yaml --project-name=shop deploy",
		"ps web -p shop --json":           "--project-name=shop ps --json -- web",
		"logs -n5 web":                    "logs --tail=5 -- web",
		"logs --tail -1 web":              "logs --tail=-1 -- web",
		"logs -ft web":                    "logs --follow --timestamps -- web",
		"logs -fn 5 web":                  "logs --follow --tail=5 -- web",
		"exec web ls -la --json":          "exec -- web ls -la --json",
		"exec -it web sh -c exit":         "exec --interactive --tty -- web sh -c exit",
		"exec web -T --user root id -u":   "exec --no-tty --user=root -- web id -u",
		"exec web -p shop -- -odd -x":     "--project-name=shop exec -- web -odd -x",
		"exec --index=2 web -- sh":        "exec --index=2 -- web sh",
		"image ls --json":                 "image ls --json",
		"image load - -p shop":            "--project-name=shop image load -- -",
		"down -v -p shop":                 "--project-name=shop down --volumes -- ",
		"ps --json=false":                 "ps --json=false",
		"help":                            "--help",
		"help image ls":                   "image ls --help",
		"ps -h":                           "ps --help",
		"-h":                              "--help",
		"-H unix:///x ps":                 "--host=unix:///x ps",
		"-v":                              "version",
		"--version --json":                "version --json",
		"stop -- -odd":                    "stop -- -odd",
		"scale web=3 -d":                  "scale --detach -- web=3",
		"":                                "",
	} {
		got, err := arrange(app, strings.Fields(give))
		if err != nil {
			t.Errorf("%s: %v", give, err)
			continue
		}
		if text := strings.Join(got, " "); text != strings.TrimSuffix(want, " -- ") {
			t.Errorf("%s:\n got %s\nwant %s", give, text, want)
		}
	}
}

func TestArrangeRefuses(t *testing.T) {
	app := newProgram().app()
	for give, want := range map[string][2]string{
		"bogus":           {`unknown verb "bogus"`, "see `dunnage --help`"},
		"compose up":      {`unknown verb "compose"`, composeVerbs["compose"]},
		"ps -v":           {"unknown flag -v of `dunnage ps`", "see `dunnage ps --help`"},
		"lgos":            {`unknown verb "lgos"`, "did you mean logs?"},
		"deploi":          {`unknown verb "deploi"`, "did you mean deploy?"},
		"xyzzyx":          {`unknown verb "xyzzyx"`, "see `dunnage --help`"},
		"image lss":       {"unknown verb \"lss\" of `dunnage image`", "did you mean ls?"},
		"ps --jsn":        {"unknown flag --jsn of `dunnage ps`", "did you mean --json?"},
		"ps web --flie=x": {"unknown flag --flie of `dunnage ps`", "did you mean --file?"},
		"ps -z":           {"unknown flag -z of `dunnage ps`", "see `dunnage ps --help`"},
		"deploy -dz":      {"unknown flag -z of `dunnage deploy`", "see `dunnage deploy --help`"},
		"--tail 5 logs":   {"unknown flag --tail", "see `dunnage --help`"},
		"logs web --tail": {"--tail needs a value", ""},
		"-p":              {"-p needs a value", ""},
		"-- ps":           {"a verb is missing before --", ""},
		"--f x ps":        {"unknown flag --f", ""},
	} {
		_, err := arrange(app, strings.Fields(give))
		var u *usageError
		if !errors.As(err, &u) || u.message != want[0] || want[1] != "" && u.hint != want[1] {
			t.Errorf("%s: %v, hint %q, want %q", give, err, hintOf(err), want)
		}
	}
}
