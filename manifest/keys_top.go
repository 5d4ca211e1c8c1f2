package manifest

var topKeys = []key{
	other("name", kindText, "The project's name: lower-case letters and digits, separated by single `-` or `_`. Others are refused; Compose would strip them. `-p` and COMPOSE_PROJECT_NAME go before it; without any it is the directory's name, made to fit as in Compose."),
	other("version", kindScalar, "Accepted without effect, as in Compose: the Compose Specification has no versions."),
	yes("services", kindMap, ""),
	yes("networks", kindMap, "Networks that no service uses aren't made, as in Compose."),
	yes("volumes", kindMap, "Volumes that no service uses aren't made, as in Compose."),
	yes("x-*", kindAny, "Any `x-` key but `x-dunnage` is yours: accepted and not looked at, at the top level and in every mapping of the Specification. `x-dunnage`, and what looks like a misprint of it, is refused elsewhere than under a service."),
	other("include", kindList, "As in Compose: each entry is a file, or several, with its own directory and .env; this file goes before what it includes. Circles, more than 64 files, and files of other machines are refused."),
	yes("include.[]", kindTextOrMap, ""),
	yes("include.[].path", kindTextOrList, "Relative to the project's directory, or to that of the including entry."),
	yes("include.[].path.[]", kindText, ""),
	yes("include.[].project_directory", kindText, "What relative paths in it start from. Without it the first file's directory."),
	yes("include.[].env_file", kindTextOrList, "Without it the .env of that directory. What is set outside goes before it."),
	yes("include.[].env_file.[]", kindText, ""),
	no("models", "dunnage runs containers, not language models", "Run the model server as a service of its own"),
	no("jobs", "this version runs services only", "Run the job from the host's cron or systemd, or as a service with restart: \"no\""),
}

var networkKeys = []key{
	yes("networks.*", kindMapOrNull, "A subnet of its own out of the agent's pool. Members reach each other, other networks don't reach them."),
	other("networks.*.driver", kindEnum("bridge", "default"), "`bridge` and `default` are accepted, but there is no bridge: every replica is routed by the host. Other drivers are refused."),
	yes("networks.*.internal", kindBool, "Members can't reach, nor be reached from, outside the network. A port can't be published by a service that is in internal networks only."),
	yes("networks.*.enable_ipv6", kindBool, "Names resolve to IPv6 addresses too."),
	no("networks.*.name", "a network belongs to one project and is called <project>_<network>", "Remove the key"),
	no("networks.*.external", "networks aren't shared between projects", "Put the services into one project, or publish a port"),
	no("networks.*.enable_ipv4", "every network has IPv4", "Remove the key"),
	no("networks.*.ipam", "addresses come out of the agent's pool, so that no two projects collide", "Remove the key; the agent's --pool sets the range"),
	no("networks.*.driver_opts", "there is no bridge driver that could take options", "Remove the key"),
	no("networks.*.attachable", "it has a meaning in Swarm only", "Remove the key"),
	other("networks.*.labels", kindTextListOrMap, "Carried in the file only; a note says so."),
	yes("networks.*.labels.[]", kindLabelItem, ""),
	yes("networks.*.labels.*", kindScalar, ""),
}

var volumeKeys = []key{
	yes("volumes.*", kindMapOrNull, "A named volume, made at first use and kept until `dunnage down --volumes`."),
	yes("volumes.*.name", kindIdentifier("volume name"), "The volume's name on the host; without it <project>_<volume>."),
	yes("volumes.*.external", kindBool, "The volume must exist already and is never removed."),
	yes("volumes.*.driver", kindEnum("local", "default"), "`local` only."),
	no("volumes.*.external.name", "this form is deprecated", "Write external: true and name: beside it"),
	no("volumes.*.driver_opts", "volumes are plain directories under the agent's state directory", "Mount the file system on the host and bind-mount its directory"),
	other("volumes.*.labels", kindTextListOrMap, "Carried in the file only; a note says so."),
	yes("volumes.*.labels.[]", kindLabelItem, ""),
	yes("volumes.*.labels.*", kindScalar, ""),
}
