package cache

// JournalFile is what a journal does with its file.
type JournalFile = journalFile

// WrapJournal puts something between the journal of c and its file. It must not
// be called while the journal is written.
func WrapJournal(c *Cache, wrap func(JournalFile) JournalFile) { c.journal.file = wrap(c.journal.file) }

// LostGenerations is exported for tests.
const LostGenerations = lostGenerations

// FlushBatch is exported for tests.
const FlushBatch = flushBatch
