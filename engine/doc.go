// Package engine runs replicas on containerd: images, containers, processes,
// volumes, logs and exec. It is the only importer of containerd's client.
//
// What it relies on, and why:
//
//   - Only services that containerd 1.6 has (Debian 12) are called; never the
//     transfer and sandbox services.
//   - Every call has a deadline (rpc.go): a stopped containerd answers nothing
//     and closes nothing, so a call without one hangs for ever.
//   - The kernel says whether a process lives, not containerd: after the death
//     of a shim containerd reports an exit up to 93 ms before the process is
//     gone, and an unowned one lives on while containerd is down. A replica is
//     "exited" only when its cgroup is empty.
//   - What has to survive a crash of the agent is in containerd's database (the
//     container's labels and extension), what ends with a reboot is in RunDir.
//   - Root file systems are looked into through detached mounts, which the
//     kernel takes away with the process: no crash leaves a mount behind.
package engine
