package manifest

var topKeys = []key{
	other("name", kindText, "The project's name: lower-case letters and digits, separated by single `-` or `_`. Others are refused; Compose would strip them. `-p` and COMPOSE_PROJECT_NAME go before it; without any it is the directory's name, made to fit as in Compose."),
	other("version", kindScalar, "Accepted without effect, as in Compose: the Compose Specification has no versions."),
	yes("services", kindMap, ""),
	yes("networks", kindMap, "Networks that no service uses aren't made, as in Compose."),
	yes("volumes", kindMap, "Volumes that no service uses aren't made, as in Compose."),
	yes("x-*", kindAny, "Any `x-` key but `x-dunnage` is yours: accepted and not looked at, at the top level and in every mapping of the Specification. `x-dunnage`, and what looks like a misprint of it, is refused elsewhere than under a service or a secret of the top level."),
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
	yes("networks.*.name", kindIdentifier("network name"), "The network's name on the host; without it <project>_<network>. Projects that give the same name share the network, and their services know each other's names in it; a project's own come first."),
	other("networks.*.external", kind{shape: kindBool.shape | shapeMap, check: checkBool, what: kindBool.what}, "Shared by all projects that name it, as with `name`; it needn't exist: the first to name it brings it in."),
	yes("networks.*.external.name", kindIdentifier("network name"), "The deprecated form of `name`."),
	yes("networks.*.enable_ipv4", kindAlways("every network has IPv4"), "`true` only."),
	yes("networks.*.ipam", kindMapOrNull, ""),
	yes("networks.*.ipam.driver", kindEnum("default"), "`default` only."),
	no("networks.*.ipam.config", "addresses come out of the agent's pool, so that no two projects collide", "Remove the key; the agent's --pool sets the range"),
	no("networks.*.ipam.options", "there is no driver that could take options", "Remove the key"),
	other("networks.*.driver_opts", kindMap, "What holds here anyway, or has no effect; others are refused."),
	other("networks.*.driver_opts.*", kindScalar, "`com.docker.network.bridge.name` has no effect, since there is no bridge, nor has `com.docker.network.driver.mtu`: links have the MTU of the host's default route. A note says so. `com.docker.network.bridge.enable_icc` and `.enable_ip_masquerade` may be true, `.host_binding_ipv4` 0.0.0.0."),
	other("networks.*.attachable", kindBool, "No effect, as in Compose: it is for Swarm."),
	other("networks.*.labels", kindTextListOrMap, "Carried in the file only; a note says so."),
	yes("networks.*.labels.[]", kindLabelItem, ""),
	yes("networks.*.labels.*", kindScalar, ""),
}

var volumeKeys = []key{
	yes("volumes.*", kindMapOrNull, "A named volume, made at first use and kept until `dunnage down --volumes`."),
	yes("volumes.*.name", kindIdentifier("volume name"), "The volume's name on the host; without it <project>_<volume>."),
	yes("volumes.*.external", kind{shape: kindBool.shape | shapeMap, check: checkBool, what: kindBool.what}, "The volume must exist already and is never removed."),
	yes("volumes.*.driver", kindEnum("local", "default"), "`local` only."),
	yes("volumes.*.external.name", kindIdentifier("volume name"), "The old way to write external and name."),
	other("volumes.*.driver_opts", kindMap, "`type: none`, `o: bind`, `device: DIRECTORY` is a bind mount of that directory, which must exist; nothing of the image is copied into it. Other file systems are refused."),
	yes("volumes.*.driver_opts.*", kindOption, "`o` may also have ro, rw and a propagation mode."),
	other("volumes.*.labels", kindTextListOrMap, "Carried in the file only; a note says so."),
	yes("volumes.*.labels.[]", kindLabelItem, ""),
	yes("volumes.*.labels.*", kindScalar, ""),
}
