package spec

// ProcessStates tells what the letters mean that `ps -o stat` shows of a process
// that hangs.
const ProcessStates = "T = somebody stopped it, D = it waits for a disk"
