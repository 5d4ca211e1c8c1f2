// Package logfile reads, merges and follows the logs that cmd/dunnage-log has
// written, in the form of package logwriter, for the agent.
package logfile
