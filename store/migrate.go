package store

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// version is the schema that this program reads and writes.
const version = "2"

// The buckets of a store, by the version that brought them.
var (
	buckets1 = []string{"meta", "projects", "releases", "replicas", "quarantine"}
	buckets2 = []string{"secrets", "versions", "keys", "audit"}
	buckets  = slices.Concat(buckets1, buckets2)
)

// atStep is where tests end the process.
var atStep = func(string) {}

// migrate brings a store of version 1 to the present one, in one transaction.
// Others are left to checkSchema.
func migrate(db *bbolt.DB) error {
	if checkSchema(db, "1", nil) != nil {
		return nil
	}
	if err := checkSchema(db, "1", buckets1); err != nil {
		return err
	}
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets2 {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		if err := tx.Bucket([]byte("meta")).Put([]byte("version"), []byte(version)); err != nil {
			return err
		}
		atStep("migrated")
		return nil
	})
	if err != nil {
		return fmt.Errorf("bring it from schema version 1 to %s: %w", version, err)
	}
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
