package socket

import (
	"net/http"
	"strconv"
	"strings"
)

// joined is all values of a header as one list.
func joined(h http.Header, key string) string { return strings.Join(h.Values(key), ",") }

// etagMatches reports whether an If-None-Match list has the tag or is "*", by the
// weak comparison of RFC 9110. It stops at the first element that is no tag.
func etagMatches(list, tag string) bool {
	for {
		list = strings.TrimLeft(list, " \t,")
		if strings.HasPrefix(list, "*") {
			return true
		}
		list = strings.TrimPrefix(list, "W/")
		if !strings.HasPrefix(list, `"`) {
			return false
		}
		end := strings.IndexByte(list[1:], '"') + 2
		if end < 2 {
			return false
		}
		if list[:end] == tag {
			return true
		}
		list = list[end:]
	}
}

// prefersText reports whether an Accept list wants text/plain more than JSON. With
// the same weight the one that is named more exactly wins, then JSON. A list that
// wants neither gets JSON.
func prefersText(accept string) bool {
	text := preference{exact: -1}
	json := preference{exact: -1}
	for element := range strings.SplitSeq(accept, ",") {
		mediaType, weight, ok := acceptElement(element)
		if !ok {
			continue
		}
		text.consider(mediaType, weight, "text/plain", "text/*")
		json.consider(mediaType, weight, "application/json", "application/*")
	}
	return text.weight > json.weight || text.weight > 0 && text.weight == json.weight && text.exact > json.exact
}

// preference is how much a list wants one media type: the weight of the element
// that names it most exactly.
type preference struct {
	weight float64
	exact  int // -1 not named, 0 by */*, 1 by a range, 2 by name
}

func (p *preference) consider(mediaType string, weight float64, name, within string) {
	exact := -1
	switch mediaType {
	case name:
		exact = 2
	case within:
		exact = 1
	case "*/*":
		exact = 0
	}
	if exact > p.exact {
		p.weight, p.exact = weight, exact
	}
}

// acceptElement splits one element of an Accept list into its lower-case type and
// its weight. An element with a weight that is no number counts as absent.
func acceptElement(element string) (mediaType string, weight float64, ok bool) {
	mediaType, params, _ := strings.Cut(element, ";")
	weight = 1
	for param := range strings.SplitSeq(params, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if !strings.EqualFold(key, "q") {
			continue
		}
		var err error
		if weight, err = strconv.ParseFloat(value, 64); err != nil || !(weight >= 0 && weight <= 1) {
			return "", 0, false
		}
	}
	return strings.ToLower(strings.TrimSpace(mediaType)), weight, true
}
