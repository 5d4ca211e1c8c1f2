package store_test

import (
	"errors"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"dunnage/spec"
	"dunnage/store/storetest"
)

// A receipt that isn't what its key says, or no receipt at all, is refused where
// it is read, with what and where.
func TestDamagedReceipts(t *testing.T) {
	for name, tc := range map[string]struct{ value, want string }{
		"no JSON":         {"{", `receipts of p: "\x00\x00\x00\x00\x00\x00\x00\x03": unexpected end`},
		"not text":        {"{\"cause\":\"\xff\"}", `isn't text`},
		"another number":  {encode(t, storetest.Receipt("p", 4)), `is receipt 4 of p`},
		"another project": {encode(t, storetest.Receipt("q", 3)), `is receipt 3 of q`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dunnage.db")
			s := open(t, path)
			if err := errors.Join(s.Commit(spec.Commit{Receipts: []spec.Receipt{storetest.Receipt("p", 2)}}), s.Close()); err != nil {
				t.Fatal(err)
			}
			edit(t, path, func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte("receipts")).Bucket([]byte("p")).Put(number(3), []byte(tc.value))
			})
			s = open(t, path)
			_, err := s.Load()
			refused(t, err, path, tc.want)
			_, err = s.Receipts("p")
			refused(t, err, path, tc.want)
		})
	}
}
