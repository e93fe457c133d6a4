// Package cache holds the truth about every name: its grant, its tokens, what is
// still to be withdrawn, whether it is blocked. Despite its name it is not
// disposable: what it has on disk is what a restart goes on from.
//
// Apps read through Reader, a view in memory that never waits for a write or for
// Access Manager. The refresher is the only writer: it loads a Record, works, and
// gives the changed Record back to Commit, which stores it first and publishes it
// second, and refuses it when the name has moved on meanwhile. A decision of an
// operator goes the other way round: it holds in memory at once (Stage) and is
// made durable by Flush, first as a line of the journal, then in the records.
//
// The package never talks to the network, starts no goroutine and asks no clock
// of its own: the time in every call is server time.
package cache
