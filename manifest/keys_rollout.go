package manifest

// rolloutKeys say how replicas are started again and how those of a new
// release take over from the old ones.
var rolloutKeys = []key{
	other("services.*.restart", kindRestart, "`no`, `always`, `unless-stopped`, `on-failure[:N]`, as in Compose. Without the key `on-failure`: a replica that dies is replaced, and a job that ends well is done; Compose would leave both."),
	yes("services.*.deploy.restart_policy", kindMap, "Goes before restart, as in Compose; a note says so where both are there."),
	yes("services.*.deploy.restart_policy.condition", kindEnum("none", "on-failure", "any", "unless-stopped"), "`none`, `on-failure`, `any` or `unless-stopped`, which are restart's `no`, `on-failure`, `always` and `unless-stopped`. Default `any`."),
	other("services.*.deploy.restart_policy.delay", kindDuration, "From an exit to the next start. Without it at once at first, then longer each time; Swarm: 5 s."),
	yes("services.*.deploy.restart_policy.max_attempts", kindCount, "Restarts in a row. Without it, and with 0, no limit."),
	other("services.*.deploy.restart_policy.window", kindDuration, "A run this long ends the row. Without it 10 s; Compose: any run does."),

	other("services.*.deploy.mode", kindDeployMode, "`replicated` or `global`, which is one replica: there is one host. `replicated-job` and `global-job` are refused: a service with `restart: on-failure` is a job when it ends well."),
	yes("services.*.deploy.endpoint_mode", kindEndpointMode, "`vip`, which is what a service always has: one stable address."),
	yes("services.*.deploy.placement", kindMap, "There is one host."),
	yes("services.*.deploy.placement.constraints", kindList, ""),
	other("services.*.deploy.placement.constraints.[]", kindConstraint, "`node.role == manager` and `node.platform.os == linux` are true. Those of `node.id`, `node.hostname`, `node.labels` and `engine.labels` choose a host, which whoever deploys has done: they aren't checked, as in Compose, and a note says so. Others are refused."),
	no("services.*.deploy.placement.max_replicas_per_node", "there is one host, so it would only bound the replicas", "Remove the key and set deploy.replicas"),
	yes("services.*.deploy.placement.preferences", kindList, "Accepted: replicas on one host are spread as well as they can be."),
	yes("services.*.deploy.placement.preferences.[]", kindMap, ""),
	yes("services.*.deploy.placement.preferences.[].spread", kindText, ""),

	yes("services.*.deploy.update_config", kindMap, "How the replicas of a new release take over from the old ones."),
	other("services.*.deploy.update_config.order", kindEnum("start-first", "stop-first"), "Without it start-first, except stop-first for a service that can write to a bind mount or a named volume, because two writers corrupt data, and for one in the host's network, because two can't listen on one port. A service that joins the network of another has the other's order, and where both are start-first they go in step: a new version of either replaces both, pair by pair, and with the other's parallelism and delay. Compose and Swarm: stop-first."),
	other("services.*.deploy.update_config.parallelism", kindCount, "Replicas of a batch. Without it, and with 0, all at once; Swarm: 1 without it. A stop-first update of a service with a writable mount is always one batch: the old replicas would write beside the new ones."),
	yes("services.*.deploy.update_config.delay", kindDuration, "From the time a batch takes connections to the start of the next. Default 0."),
	other("services.*.deploy.update_config.monitor", kindDuration, "How long a new replica must run well before it takes connections from an old one; one that exits in it has failed. Default 0. Swarm watches for 5 s, but after the old one is gone."),
	yes("services.*.deploy.update_config.max_failure_ratio", kindRatio, "Share of the replicas that may fail, from 0 to 1. Default 0."),
	other("services.*.deploy.update_config.failure_action", kindEnum("rollback", "pause", "continue"), "What is done about a release of which more than max_failure_ratio of the replicas fail: `rollback` (the default; Swarm: pause) brings the earlier release back; `pause` leaves all as it is until somebody resumes the rollout or goes back; `continue` never goes back: the update goes on with the replicas that are ready, and those that failed are left behind and tried again as their restart policy says. When none gets ready, or a canary fails, the deploy ends as failed, what serves goes on serving, and the agent keeps trying as the restart policy says; an accept command isn't run again by itself."),
	yes("services.*.deploy.rollback_config", kindMap, "How an earlier release comes back. Without it a rollback goes as update_config says."),
	other("services.*.deploy.rollback_config.order", kindEnum("start-first", "stop-first"), "Without it that of update_config."),
	other("services.*.deploy.rollback_config.parallelism", kindCount, "As in update_config."),
	yes("services.*.deploy.rollback_config.delay", kindDuration, "As in update_config."),
	other("services.*.deploy.rollback_config.monitor", kindDuration, "As in update_config."),
	yes("services.*.deploy.rollback_config.max_failure_ratio", kindRatio, "As in update_config."),
	yes("services.*.deploy.rollback_config.failure_action", kindEnum("pause", "continue"), "`pause` (the default) or `continue`, as in update_config."),
}
