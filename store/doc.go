// Package store keeps what outlives the agent in one bbolt file. It decides
// nothing: it loads the whole spec.State once and makes each spec.Commit in one
// durable transaction.
//
// The schema, version 3; every value is JSON of the named type:
//
//	meta        "version" -> "3"
//	projects    name                      -> spec.ProjectRecord
//	releases    project -> number, 8 bytes big endian -> spec.Release
//	replicas    ID                        -> spec.ReplicaRecord
//	quarantine  address                   -> spec.QuarantinedAddress
//	secrets     project \0 name           -> spec.SecretRecord
//	versions    project \0 name \0 version, 8 bytes big endian -> spec.SecretVersion
//	keys        "data"                    -> spec.SecretKey
//	audit       number, 8 bytes big endian -> spec.AuditEntry
//	receipts    project -> number, 8 bytes big endian -> spec.Receipt
//
// Version 1 had no secrets, that is none of the last five buckets, and version 2
// no receipts: Open adds what is missing and the new version in one transaction.
// A program that knows only an earlier version refuses the file from then on.
//
// The audit record is only appended to, and keeps the newest spec.KeptAudit
// entries. What is kept is a chain that can be verified from its first entry,
// whose Prev is the hash of the last one that was dropped.
//
// Of the receipts of a project the spec.KeptReceipts newest are kept.
//
// After a crash or power cut the file holds every commit that returned, and
// none in part. It is created under another name, synced and renamed, since
// bbolt doesn't promise a usable file when its first initialisation is cut short.
//
// What was dropped or replaced stays in free pages of the file until Compact
// writes it anew, beside the old one (".compact" at the end of its name). The
// blocks of the old file aren't overwritten: what the disk still has of them is
// a matter of the disk.
package store
