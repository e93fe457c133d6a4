package interop

import (
	"encoding/base64"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
)

// FuzzParseAgreement gives the same text to both parsers. The bytes are a token's text, or what base64 hides in it. Whatever both take they must
// read alike; what only one takes must have one of the reasons in the README.
func FuzzParseAgreement(f *testing.F) {
	seeds := vectors(f)
	for _, v := range seeds {
		f.Add([]byte(v.Token), true)
		if data, err := sdkBase64(v.Token); err == nil {
			f.Add(data, false)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, text bool) {
		token := string(data)
		if !text {
			token = base64.URLEncoding.EncodeToString(data)
		}
		if got := compareParsers(token); !got.explained() {
			t.Errorf("%s and no reason known: %s\n%x", got.class, got.detail, data)
		}
	})
}

// The same without a fuzzer, so that every run of the tests makes the same comparisons, and many that a fuzzer needs long to find.
func TestParseMutations(t *testing.T) {
	n := 50_000
	if testing.Short() {
		n = 10_000
	}
	seed := uint64(20)
	if text := os.Getenv("INTEROP_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("INTEROP_SEED: %v", err)
		}
	}
	check(t, strconv.Itoa(n), func(t *testing.T) { compareMutations(t, seed, n) })
}

func compareMutations(t *testing.T, seed uint64, n int) {
	var tokens []string
	for _, v := range vectors(t) {
		if v.Valid {
			tokens = append(tokens, v.Token)
		}
	}
	m := newMutator(seed, tokens)
	classes, why, unexplained := map[string]int{}, map[reason]int{}, 0
	for range n {
		token := m.next()
		got := compareParsers(token)
		classes[got.class]++
		for _, r := range got.why {
			why[r]++
		}
		if got.explained() {
			continue
		}
		if unexplained++; unexplained <= 20 {
			data, _ := sdkBase64(token)
			t.Errorf("%s and no reason known: %s\n%x", got.class, got.detail, data)
		}
	}
	report("parsers: %d mutated tokens: both %d, neither %d, only pam %d, only the SDK %d, read differently %d, unexplained %d",
		n, classes["both"], classes["neither"], classes["only pam"], classes["only the SDK"], classes["read differently"], unexplained)
	for _, r := range slices.Sorted(maps.Keys(why)) {
		t.Logf("%7d %s", why[r], r)
	}
	if classes["both"] < n/10 {
		t.Errorf("only %d of %d were taken by both: the mutations compare nothing", classes["both"], n)
	}
	for _, class := range []string{"only pam", "only the SDK"} {
		if classes[class] == 0 {
			t.Errorf("no token was in class %q", class)
		}
	}
}
