package store

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"dunnage/spec"
)

// Receipts lists a project's kept receipts, oldest first.
func (s *Store) Receipts(project string) ([]spec.Receipt, error) {
	var out []spec.Receipt
	err := s.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("receipts")).Bucket([]byte(project))
		if b == nil {
			return nil
		}
		return eachReceipt(project, b, func(r spec.Receipt) { out = append(out, r) })
	})
	if err != nil {
		return nil, fmt.Errorf("read store %s: %w; %s", s.path, err, restore)
	}
	return out, nil
}

// unsettled lists the receipts of all projects that are still to be amended.
func unsettled(all *bbolt.Bucket) ([]spec.Receipt, error) {
	var out []spec.Receipt
	err := all.ForEachBucket(func(project []byte) error {
		return eachReceipt(string(project), all.Bucket(project), func(r spec.Receipt) {
			if r.Settled.IsZero() {
				out = append(out, r)
			}
		})
	})
	return out, err
}

func eachReceipt(project string, b *bbolt.Bucket, do func(spec.Receipt)) error {
	return b.ForEach(func(k, v []byte) error {
		r, err := decode[spec.Receipt](k, v)
		if err == nil && (r.Project != project || !bytes.Equal(k, releaseKey(r.Number))) {
			err = fmt.Errorf("%q is receipt %d of %s", k, r.Number, r.Project)
		}
		if err != nil {
			return fmt.Errorf("receipts of %s: %w", project, err)
		}
		do(r)
		return nil
	})
}

// receipts keeps them, and drops those that are too old.
func (w *writer) receipts(rs []spec.Receipt) {
	for _, r := range rs {
		w.receipt(r)
	}
}

func (w *writer) receipt(r spec.Receipt) {
	if w.err != nil {
		return
	}
	var b *bbolt.Bucket
	if b, w.err = w.tx.Bucket([]byte("receipts")).CreateBucketIfNotExists([]byte(r.Project)); w.err != nil {
		return
	}
	var v []byte
	if v, w.err = json.Marshal(r); w.err == nil {
		w.err = b.Put(releaseKey(r.Number), v)
	}
	c := b.Cursor()
	k, _ := c.Last()
	for range spec.KeptReceipts - 1 {
		if k != nil {
			k, _ = c.Prev()
		}
	}
	if k == nil { // no more than may stay
		return
	}
	oldest := bytes.Clone(k)
	for k, _ := c.First(); w.err == nil && k != nil && bytes.Compare(k, oldest) < 0; k, _ = c.First() {
		w.err = b.Delete(k)
	}
}
