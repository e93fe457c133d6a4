package socket

import "testing"

func TestETagMatches(t *testing.T) {
	const tag = `"7.3f9a1c02"`
	for list, want := range map[string]bool{
		"":                        false,
		`"7.3f9a1c02"`:            true,
		`W/"7.3f9a1c02"`:          true,
		`"a", "7.3f9a1c02"`:       true,
		`"a",W/"b",,"7.3f9a1c02"`: true,
		`"a,b" , "7.3f9a1c02"`:    true,
		`*`:                       true,
		` * `:                     true,
		`7.3f9a1c02`:              false,
		`"7.3f9a1c02`:             false,
		`"7.3f9a1c0"`:             false,
		`"`:                       false,
		`W/`:                      false,
		`x, "7.3f9a1c02"`:         false,
	} {
		if got := etagMatches(list, tag); got != want {
			t.Errorf("etagMatches(%s) = %v", list, got)
		}
	}
}

func TestPrefersText(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                                  false,
		"*/*":                               false,
		"text/plain":                        true,
		"TEXT/Plain; charset=utf-8":         true,
		"text/*":                            true,
		"text/plain, */*":                   true,
		"text/plain;q=0.5, */*;q=0.1":       true,
		"text/plain;q=0.5, */*":             false,
		"text/plain, application/json":      false,
		"text/plain;q=0.9,application/json": false,
		"text/plain,application/json;q=0.9": true,
		"text/plain;q=0":                    false,
		"*/*, application/json;q=0":         true,
		"text/plain;q=nan":                  false,
		"text/plain;q=7":                    false,
		"text/html":                         false,
		"image/png":                         false,
		"text/plain;q=0.2, text/*;q=0.9, application/json;q=0.5": false,
	} {
		if got := prefersText(accept); got != want {
			t.Errorf("prefersText(%s) = %v", accept, got)
		}
	}
}
