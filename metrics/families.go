package metrics

import "github.com/prometheus/client_golang/prometheus"

// family is a metric with its labels. Durations are in seconds, sizes in bytes.
type family struct {
	name, kind, help string
	labels           []string
	desc             *prometheus.Desc
}

// families are all of ours, in the order of their declaration.
var families []*family

func declare(kind, name, help string, labels ...string) *family {
	name = "dunnage_" + name
	f := &family{name, kind, help, labels, prometheus.NewDesc(name, help, labels, nil)}
	families = append(families, f)
	return f
}

func gauge(name, help string, labels ...string) *family {
	return declare("gauge", name, help, labels...)
}
func counter(name, help string, labels ...string) *family {
	return declare("counter", name, help, labels...)
}
func histogram(name, help string, labels ...string) *family {
	return declare("histogram", name, help, labels...)
}
func summary(name, help string, labels ...string) *family {
	return declare("summary", name, help, labels...)
}

// The agent.
var (
	buildInfo = gauge("build_info", "Always 1; the agent's version, and the Go that built it.", "version", "goversion")
	problems  = gauge("problems", "Problems that the agent tells of; `dunnage ps` names them.")
	lastLook  = gauge("last_look_timestamp_seconds", "When the agent last looked at containers, rules and links; it does so every two seconds.")
	lookTime  = histogram("look_duration_seconds", "Time of a look.")
	unseeing  = counter("looks_failed_total", "Looks that failed, because containerd or the kernel didn't answer.")
	planTime  = histogram("plan_duration_seconds", "Time to decide, after a look, what to do.")
	actions   = summary("action_duration_seconds", "Time of the agent's actions, such as create, start, apply and remove; outcome is done or failed. Failed ones are tried again.", "action", "outcome")
	events    = counter("events_total", "Events by kind, as `dunnage events` names them; of kind oom when the kernel has killed processes of a replica that goes on, for want of memory.", "kind")
	storeSize = gauge("store_size_bytes", "Size of the agent's store.")
)

// Operations and projects.
var (
	operations    = counter("operations_total", "Deploys and other changes that have ended; outcome is done, unchanged, failed, rolled-back or paused.", "project", "kind", "outcome")
	operationTime = histogram("operation_duration_seconds", "Time of deploys and other changes, pulls included.", "kind")
	release       = gauge("project_release", "Number of the project's desired release.", "project")
	rolling       = gauge("project_rolling", "1 while the release has yet to prove itself.", "project")
	paused        = gauge("project_paused", "1 while the rollout stands still until somebody says so.", "project")
)

// Services.
var (
	wanted      = gauge("service_replicas_wanted", "Replicas that the release wants; 0 for a service that was stopped.", "project", "service")
	ready       = gauge("service_replicas_ready", "Ready replicas of the wanted generation.", "project", "service")
	replicas    = gauge("service_replicas", "Replicas by state, as `dunnage ps` names it; there is no series for a state without any.", "project", "service", "state")
	converged   = gauge("service_converged", "1 if the service is as its release wants it.", "project", "service")
	unreachable = gauge("service_unreachable", "1 if replicas are well and clients don't get through to them.", "project", "service")
	unwritten   = gauge("service_replicas_unwritten", "Replicas whose log writer is gone, so that what they print is lost until they are restarted; stopped or stuck, so that they block once their pipe is full; or fails, as its disk is full or hangs. Looked for every 30 s.", "project", "service")
	held        = gauge("service_connections_held", "1 while no replica is ready and new connections wait.", "project", "service")
)

// What clients see.
var (
	reachable   = gauge("target_reachable", "1 if the visitor gets an answer at an address that clients use, 0 if three visits in a row failed; no series while that isn't known. From is outside or host; port is empty for the service's own address.", "project", "service", "from", "port", "family")
	visits      = counter("visits_total", "Visits of the service's addresses, on the way that clients take.", "project", "service")
	visitFailed = counter("visits_failed_total", "Visits that failed.", "project", "service")
	visitTime   = histogram("visit_duration_seconds", "Time of the visits that were answered.", "project", "service")
	probes      = counter("probes_total", "Health checks by kind and outcome, passed or failed. Failures of a replica that has yet to pass for the first time don't count.", "project", "service", "kind", "outcome")
)

// Rules and the kernel.
var (
	commits       = counter("rules_commits_total", "Commits of nat tables, one for each address family.")
	changedRules  = counter("rules_changed_total", "Rules added or removed by these commits.", "change")
	swapTime      = histogram("rules_swap_duration_seconds", "Time to bring changed rules into the kernel: compare, routes, commits, and the sweep of UDP entries after them.")
	repairs       = counter("repairs_total", "Repairs of what others had damaged, by kind of damage: table, chain, jump, setting, route, address, neighbour, link or namespace.", "kind")
	tracked       = gauge("conntrack_entries", "Connections in the kernel's table, whoever's they are.")
	trackedAtMost = gauge("conntrack_entries_limit", "Entries at which the kernel drops new connections.")
)

// containerd.
var (
	engineUp       = gauge("containerd_up", "1 if containerd has answered the last write to its database.")
	engineLatency  = gauge("containerd_write_duration_seconds", "Time of the last write to containerd's database that was answered; there is one every 10 s.")
	engineRestarts = counter("containerd_restarts_total", "Restarts of a containerd that gave no answer, or died.")
	calls          = histogram("containerd_call_duration_seconds", "Time of calls to containerd, by its service; those that may take long stand for themselves, such as tasks.create.", "group")
	callsFailed    = counter("containerd_calls_failed_total", "Calls to containerd that it couldn't do.", "group")
	callsTimedOut  = counter("containerd_calls_timed_out_total", "Of those, calls without an answer in their time.", "group")
)

// Disk.
var (
	diskBytes       = gauge("disk_used_bytes", "What dunnage keeps on disk, by kind: content, layers, writable, logs, state or volumes; while containerd doesn't answer, none of the first three.", "kind")
	diskInodes      = gauge("disk_used_inodes", "Files and directories of it.", "kind")
	diskCounted     = gauge("disk_counted_bytes", "All of it that the budget bounds: everything but volumes; none while containerd doesn't answer.")
	diskBudget      = gauge("disk_budget_bytes", "The budget; there is no series without one.")
	diskCollectable = gauge("disk_collectable_bytes", "What nobody needs and is collected next.")
	diskCollected   = counter("disk_collected_bytes_total", "Bytes that were freed by collecting.")
	fsSize          = gauge("filesystem_size_bytes", "Size of the file system that dir is on.", "dir")
	fsAvailable     = gauge("filesystem_available_bytes", "Bytes that programs other than root's may still use.", "dir")
	fsInodes        = gauge("filesystem_inodes", "Inodes of the file system; there is no series where it doesn't count them.", "dir")
	fsFreeInodes    = gauge("filesystem_inodes_free", "Inodes that are left.", "dir")
)

// Replicas. Two generations of one number are one series.
var (
	restarts   = counter("replica_restarts_total", "Restarts that nobody asked for. The store keeps them over restarts of the agent; a new generation begins at 0.", "project", "service", "replica")
	cpu        = counter("replica_cpu_seconds_total", "CPU time on all cores. Like the other counters of what replicas use, it begins at 0 with the agent.", "project", "service", "replica")
	cpuLimit   = gauge("replica_cpu_limit_cores", "CPU limit; there is no series without one.", "project", "service", "replica")
	throttled  = counter("replica_cpu_throttled_seconds_total", "Time that the CPU limit kept it waiting.", "project", "service", "replica")
	memory     = gauge("replica_memory_bytes", "Memory that the kernel can't simply drop: without the inactive page cache.", "project", "service", "replica")
	memLimit   = gauge("replica_memory_limit_bytes", "Memory limit; there is no series without one.", "project", "service", "replica")
	pids       = gauge("replica_pids", "Processes and threads.", "project", "service", "replica")
	pidsLimit  = gauge("replica_pids_limit", "Limit of processes and threads; there is no series without one.", "project", "service", "replica")
	received   = counter("replica_network_received_bytes_total", "Bytes received through its own link.", "project", "service", "replica")
	sent       = counter("replica_network_sent_bytes_total", "Bytes sent through its own link.", "project", "service", "replica")
	blockRead  = counter("replica_block_read_bytes_total", "Bytes read from block devices.", "project", "service", "replica")
	blockWrite = counter("replica_block_written_bytes_total", "Bytes written to block devices.", "project", "service", "replica")
)

// Last, so that it knows of all.
var cutSeries = gauge("metrics_cut_series", "Series that were left out because there would have been too many.")
