package store

// AtStep has f called at each step of a migration and of a compaction.
func AtStep(f func(step string)) { atStep = f }

// OpenFile waits for the lock of a file, as Open does.
var OpenFile = openFile

// PagesWritten counts the pages that commits have written so far.
func PagesWritten(s *Store) int64 {
	stats := s.db.Stats().TxStats
	return stats.GetPageCount()
}
