package store

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// version is the schema that this program reads and writes.
const version = "3"

// The buckets of a store, by the version that brought them.
var (
	buckets1 = []string{"meta", "projects", "releases", "replicas", "quarantine"}
	buckets2 = []string{"secrets", "versions", "keys", "audit"}
	buckets3 = []string{"receipts"}
	buckets  = slices.Concat(buckets1, buckets2, buckets3)
)

// earlier are the versions that a store is brought on from, with the buckets
// that it must have then.
var earlier = map[string][]string{
	"1": buckets1,
	"2": slices.Concat(buckets1, buckets2),
}

// atStep is where tests end the process.
var atStep = func(string) {}

// migrate brings a store of an earlier version to the present one, in one
// transaction. Others are left to checkSchema.
func migrate(db *bbolt.DB) error {
	for from, there := range earlier {
		if checkSchema(db, from, nil) != nil {
			continue
		}
		if err := checkSchema(db, from, there); err != nil {
			return err
		}
		if err := db.Update(complete); err != nil {
			return fmt.Errorf("bring it from schema version %s to %s: %w", from, version, err)
		}
		return nil
	}
	return nil
}

// complete makes the buckets that are missing, and the present version.
func complete(tx *bbolt.Tx) error {
	for _, name := range buckets {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	if err := tx.Bucket([]byte("meta")).Put([]byte("version"), []byte(version)); err != nil {
		return err
	}
	atStep("migrated")
	return nil
}

// checkSchema refuses a store that isn't of this version, or lacks one of these buckets.
func checkSchema(db *bbolt.DB, version string, buckets []string) error {
	return db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		if meta == nil {
			return errors.New("this is not a dunnage store")
		}
		if got := string(meta.Get([]byte("version"))); got != version {
			return fmt.Errorf("its schema is version %q and this program knows %q; use the program that wrote it", got, version)
		}
		for _, name := range buckets {
			if tx.Bucket([]byte(name)) == nil {
				return fmt.Errorf("it has no %s; %s", name, restore)
			}
		}
		return nil
	})
}
