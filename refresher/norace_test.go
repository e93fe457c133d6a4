//go:build !race

package refresher_test

// scaled is the size of a test of many names.
func scaled(n int) int { return n }
