package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"dunnage/spec"
)

// auditBatch is how many entries Audit reads in one transaction: about 100 KiB.
const auditBatch = 256

// auditFill is how full the pages of the audit record get: nothing is ever put
// between two entries.
const auditFill = 0.95

func auditKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func decodeAudit(k, v []byte) (spec.AuditEntry, error) {
	e, err := decode[spec.AuditEntry](k, v)
	if err == nil && !bytes.Equal(k, auditKey(e.Seq)) {
		err = fmt.Errorf("%q is entry %d", k, e.Seq)
	}
	if err != nil {
		return spec.AuditEntry{}, fmt.Errorf("audit record: %w", err)
	}
	return e, nil
}

// Audit sends the entries from seq on, in order, until send returns an error,
// which it returns. The first that is sent may have a later number: of the
// record only the newest spec.KeptAudit entries are kept. No transaction is open
// and no lock held while send runs.
func (s *Store) Audit(seq uint64, send func(spec.AuditEntry) error) error {
	for begun := false; ; begun = true {
		entries, first, err := s.auditFrom(seq)
		if err != nil {
			return fmt.Errorf("read store %s: %w; %s", s.path, err, restore)
		}
		if begun && first > seq {
			return fmt.Errorf("read the audit record: entries %d to %d were dropped meanwhile, since only the newest %d are kept; read it again", seq, first-1, spec.KeptAudit)
		}
		for _, e := range entries {
			if err := send(e); err != nil {
				return err
			}
		}
		if len(entries) < auditBatch {
			return nil
		}
		seq = entries[len(entries)-1].Seq + 1
	}
}

// auditFrom reads a batch, and the number of the first entry of all.
func (s *Store) auditFrom(seq uint64) (entries []spec.AuditEntry, first uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte("audit")).Cursor()
		if k, _ := c.First(); len(k) == 8 {
			first = binary.BigEndian.Uint64(k)
		}
		for k, v := c.Seek(auditKey(seq)); k != nil && len(entries) < auditBatch; k, v = c.Next() {
			e, err := decodeAudit(k, v)
			if err != nil {
				return err
			}
			entries = append(entries, e)
		}
		return nil
	})
	return entries, first, err
}

// audit appends the entries and drops those that are too old. The first one
// kept has the hash of the last one dropped, so what is left is a chain still.
func (w *writer) audit(entries []spec.AuditEntry) {
	if w.err != nil || len(entries) == 0 {
		return
	}
	b := w.tx.Bucket([]byte("audit"))
	b.FillPercent = auditFill
	var last uint64
	if k, _ := b.Cursor().Last(); len(k) == 8 {
		last = binary.BigEndian.Uint64(k)
	}
	for _, e := range entries {
		if w.err == nil && e.Seq != last+1 {
			w.err = fmt.Errorf("the audit record ends at entry %d, and %d was to follow", last, e.Seq)
		}
		last++
		w.put("audit", string(auditKey(last)), e)
	}
	for k, _ := b.Cursor().First(); w.err == nil && len(k) == 8; k, _ = b.Cursor().First() {
		if binary.BigEndian.Uint64(k)+spec.KeptAudit > last {
			return
		}
		w.err = b.Delete(k)
	}
}
