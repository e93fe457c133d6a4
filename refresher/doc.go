// Package refresher decides when a token is granted, replaced or withdrawn, and
// is the only writer of package cache. The command wires it; operators reach it
// through package admin.
//
// One loop asks the cache which names are due and hands them to a bounded number
// of workers, at most one for each name. A worker makes one attempt and commits
// its result at the state of the name it started from; if the name has moved on,
// the token just obtained joins those to be withdrawn. Policy is pure functions of
// record and time (policy.go). Every request on the wire waits for the one
// Limiter, and every moment is server time as Clock estimates it.
//
// The package never serves tokens and never decides on its own that a revoke was
// enough: a withdrawn token is tried until Access Manager confirms or it ends.
package refresher
