package main

import "strings"

// What people type who know Compose and Docker, and what does it here.
var (
	composeVerbs = map[string]string{
		"compose": "the verbs stand alone here: `dunnage deploy` is `docker compose up -d`, `dunnage --help` lists them",
		"up":      "`dunnage deploy` makes this host run what the manifest declares",
		"create":  "`dunnage deploy` makes this host run what the manifest declares",
		"run":     "`dunnage exec SERVICE COMMAND` runs a command in a running replica",
		"rm":      "`dunnage stop SERVICE` stops a service, `dunnage down` removes a project",
		"kill":    "`dunnage stop SERVICE` stops a service, `dunnage down` removes a project",
		"pause":   "`dunnage stop SERVICE` stops a service",
		"unpause": "`dunnage start SERVICE` starts a service",
		"pull":    "`dunnage image pull REF` downloads an image; deploy does it by itself",
		"load":    "`dunnage image load FILE` takes an archive in",
		"images":  "`dunnage image ls` lists images",
		"rmi":     "`dunnage image rm REF` removes an image",
		"system":  "`dunnage df` shows what takes room on disk, `dunnage gc` removes what nobody needs",
		"prune":   "`dunnage gc` removes what nobody needs; the agent does it by itself, too",
		"build":   "dunnage builds no images: build with your tool, then push to a registry or `dunnage image load`",
		"push":    "dunnage pushes no images: do it with the tool that built them",
		"attach":  "`dunnage logs -f SERVICE` follows the output, `dunnage exec SERVICE sh` goes inside",
		"cp":      "`dunnage exec -T SERVICE cat FILE` gets a file out, `tar` a directory",
		"top":     "`dunnage stats` shows what replicas use, `dunnage exec SERVICE ps` their processes if the image has ps",
		"ls":      "`dunnage ps -a` lists the replicas of all projects",
		"list":    "`dunnage ps -a` lists the replicas of all projects",
		"status":  "`dunnage ps` lists replicas",
		"port":    "`dunnage ps` shows the published ports",
		"inspect": "`dunnage ps --json` has everything of replicas, `dunnage history --json` of releases",
		"network": "`dunnage net ls` lists networks",
		"secrets": "`dunnage secret ls` lists secrets",
		"watch":   "`dunnage events` follows what happens, `dunnage ps` shows how it is",
		"wait":    "`dunnage deploy` waits by itself, unless with --detach",
	}
	composeFlags = map[string]string{
		"--dry-run": "`dunnage plan` shows what deploy would do, changing nothing",
		"--build":   composeVerbs["build"],
	}
	noReading   = "values can't be read back: `dunnage secret compare NAME <FILE` says whether one is the current, `dunnage secret ls` lists the rest"
	secretVerbs = map[string]string{
		"create":  "`dunnage secret set NAME --from-file FILE` makes one, and so does `dunnage secret set NAME <FILE`; the value is never an argument",
		"add":     "`dunnage secret set NAME` makes one",
		"update":  "`dunnage secret set NAME` makes a new version, and brings it to who uses it",
		"rotate":  "`dunnage secret set NAME` makes a new version of a secret, `dunnage secret rotate-key` a new key for all",
		"get":     noReading,
		"show":    noReading,
		"read":    noReading,
		"cat":     noReading,
		"view":    noReading,
		"inspect": "`dunnage secret ls --json` has everything but the value; `dunnage secret compare NAME <FILE` says whether that is the one you have",
		"list":    "`dunnage secret ls` lists them",
		"remove":  "`dunnage secret rm NAME` removes one",
		"delete":  "`dunnage secret rm NAME` removes one",
		"log":     "`dunnage secret audit` lists what was done",
		"history": "`dunnage secret audit` lists what was done, `dunnage secret ls --json` the versions that are kept",
		"unlock":  "`dunnage unlock` opens the secrets",
	}
)

// verbHint names what somebody may have meant.
func (a *arranger) verbHint(name string) string {
	switch hint := composeVerbs[name]; {
	case len(a.path) == 0 && hint != "":
		return hint
	case len(a.path) == 1 && a.leaf().Name == "secret" && secretVerbs[name] != "":
		return secretVerbs[name]
	case len(a.path) == 1 && a.leaf().Name == "completion":
		return "there are scripts for " + strings.Join(verbNames(a.verbs), ", ")
	}
	return suggest(name, verbNames(a.verbs), a.commandLine()+" --help")
}
