//go:build race

package refresher_test

// scaled is the size of a test of many names: under the race detector, which
// makes everything many times slower, a fifth.
func scaled(n int) int { return n / 5 }
