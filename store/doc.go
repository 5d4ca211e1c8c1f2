// Package store keeps what outlives the agent in one bbolt file. It decides
// nothing: it loads the whole spec.State once and makes each spec.Commit in one
// durable transaction.
//
// The schema, version 1; every value is JSON of the named type:
//
//	meta        "version" -> "1"
//	projects    name                      -> spec.ProjectRecord
//	releases    project -> number, 8 bytes big endian -> spec.Release
//	replicas    ID                        -> spec.ReplicaRecord
//	quarantine  address                   -> spec.QuarantinedAddress
//
// After a crash or power cut the file holds every commit that returned, and
// none in part. It is created under another name, synced and renamed, since
// bbolt doesn't promise a usable file when its first initialisation is cut short.
package store
