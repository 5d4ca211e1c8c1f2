package manifest

const dropIt = "Remove the key"

// refusedKeys are keys of a service that are refused whole.
var refusedKeys = []key{
	no("services.*.cgroup_parent", "the agent decides where cgroups stand", dropIt),
	no("services.*.credential_spec", "it has a meaning on Windows only", dropIt),
	no("services.*.external_links", "names of other projects aren't known in a project", "Put the services into one project, or publish a port"),
	no("services.*.mac_address", "links are routed, so a hardware address reaches nobody", dropIt),
	no("services.*.models", "dunnage runs containers, not language models", "Run the model server as a service of its own"),
	no("services.*.post_start", "this version runs no hooks", "Do it in the image's entrypoint"),
	no("services.*.pre_start", "this version runs no hooks", "Do it in the image's entrypoint, or in a service that others depend on with service_completed_successfully"),
	no("services.*.pre_stop", "this version runs no hooks", "Let the process handle its stop signal"),
	no("services.*.provider", "dunnage runs containers only", "Remove the service"),
	no("services.*.storage_opt", "a writable layer is part of the host's file system and can't have a size of its own", "Put the data on a volume, or on a tmpfs with size="),
	no("services.*.umask", "the image's process sets its umask", dropIt),
	no("services.*.use_api_socket", "there is no Docker API", dropIt),
	no("services.*.uts", "every container has a host name of its own", dropIt),
	no("services.*.volumes_from", "mounts are listed where they are used", "Name the volume under volumes of each service"),
}
