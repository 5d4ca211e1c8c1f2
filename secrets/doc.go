// Package secrets seals secrets, opens them, and delivers them to replicas. It
// knows no store: who uses it keeps what is sealed.
//
// Vault has the keys. An outer key, 32 bytes, comes from a source outside the
// store (see NewVault) and seals the data key; HKDF-SHA256 makes of the data key
// and of a random salt a key for each value, which AES-256-GCM seals together
// with the store, the project, the name, the version and its nonce. So a record
// opens only where it was put, and nothing but the record's own bytes comes out
// of it. What can't be opened is an error that says of which secret, and what to
// do; a vault without its outer key is locked, and the agent runs on. A rotation
// leaves, at each of its steps, a key in its place that opens what is stored.
//
// Deliverer has a tmpfs for each replica, in a directory that only root may
// enter, and replaces what stands there file by file.
//
// Keys are kept in locked memory that no core file has, and are overwritten when
// they aren't used any more. Copies that the standard library makes while it
// seals, and values on their way to a replica, stand in ordinary memory for a moment.
package secrets
