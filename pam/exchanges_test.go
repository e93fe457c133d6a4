package pam_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// exchange is one request and its answer as PubNub is known to give it, from testdata/exchanges. It is replayed twice: to a Client, and to the
// emulator. So the two are tested against what PubNub does, and not only against each other.
//
// Placeholders are {subscribe_key}, {publish_key}, {token} and {long} (33,000 letters) in a request; {token}, {timetoken} and {any} in an answer.
type exchange struct {
	name string

	About  string            `json:"about"`
	Source string            `json:"source"`
	Kind   map[string]string `json:"kind"` // how sure the request and the response are

	Given    given    `json:"given"`
	Request  recorded `json:"request"`
	Response answered `json:"response"`

	// Token is what {token} in the response was, and TokenLayout says whether the emulator's token must be the same but for time and signature, or
	// only mean the same, because the service's order of names is not fixed.
	Token       string `json:"token"`
	TokenLayout string `json:"token_layout"`

	Client     *made  `json:"client"` // what a Client makes of it
	NoClient   string `json:"no_client"`
	NoEmulator string `json:"no_emulator"`
}

// given is what was before the request.
type given struct {
	Token *struct {
		Grant string `json:"grant"` // the body of its grant
		Then  string `json:"then"`  // "", "revoked", "ended"
	} `json:"token"`
	RevokeDisabled bool           `json:"revoke_disabled"`
	Fault          *pamtest.Fault `json:"fault"` // of the emulator, which has no rate limit of its own, say
}

type recorded struct {
	Method     string            `json:"method"`
	Path       string            `json:"path"`
	Query      map[string]string `json:"query"`  // without timestamp and signature
	Repeat     string            `json:"repeat"` // a parameter that comes twice
	Headers    map[string]string `json:"headers"`
	Body       string            `json:"body"`
	SignedWith string            `json:"signed_with"` // "secret key", "another secret key", "": not at all
}

type answered struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

type made struct {
	Op           pam.Op `json:"op"`
	Outcome      string `json:"outcome"` // "token", "success", "error"
	WireRequests int    `json:"wire_requests"`
	SameRequest  bool   `json:"same_request"` // the Client's request is the recorded one

	Class            string `json:"class"`
	Code             string `json:"code"`
	Detail           string `json:"detail"`
	Location         string `json:"location"`
	Retry            string `json:"retry"`
	MayHaveActed     bool   `json:"may_have_acted"`
	FeatureDisabled  bool   `json:"feature_disabled"`
	InvalidSignature bool   `json:"invalid_signature"`
}

const longText = 33_000

func exchanges(t *testing.T) []exchange {
	t.Helper()
	paths, err := filepath.Glob("../testdata/exchanges/*.json")
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d exchanges, %v", len(paths), err)
	}
	var all []exchange
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		x := exchange{name: strings.TrimSuffix(filepath.Base(path), ".json")}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&x); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, x)
	}
	return all
}

// Every exchange says where it comes from and is replayed at least once; every recorded error body is in one.
func TestExchangesAreComplete(t *testing.T) {
	bodies := map[string]bool{}
	for _, x := range exchanges(t) {
		bodies[x.Response.Body] = true
		if x.About == "" || x.Source == "" || x.Kind["request"] == "" || x.Kind["response"] == "" || len(x.Kind) != 2 {
			t.Errorf("%s: about, source or kind is missing", x.name)
		}
		if (x.Client == nil) != (x.NoClient != "") || x.NoClient != "" && x.NoEmulator != "" {
			t.Errorf("%s: each exchange needs a client or a reason for none, and one replay at least", x.name)
		}
	}
	var file struct {
		Errors []struct{ Body, Source string }
	}
	data, err := os.ReadFile("../testdata/errors/error-bodies.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &file); err != nil || len(file.Errors) == 0 {
		t.Fatal("no error bodies", err)
	}
	for _, e := range file.Errors {
		if !bodies[e.Body] {
			t.Errorf("no exchange has the body from %s", e.Source)
		}
	}
}

// exchangeKeys are the keys of both replays.
var exchangeKeys = pam.Keyset{
	PublishKey: pamtest.DemoPublishKey, SubscribeKey: pamtest.DemoSubscribeKey, SecretKey: pamtest.DemoSecretKey,
}

// fill replaces the placeholders of a request.
func fill(text, token string) string {
	return strings.NewReplacer(
		"{subscribe_key}", exchangeKeys.SubscribeKey, "{publish_key}", exchangeKeys.PublishKey,
		"{token}", token, "{long}", strings.Repeat("a", longText),
	).Replace(text)
}

// pattern makes an expression of a text with the placeholders of an answer.
func pattern(text string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(text)
	quoted = strings.NewReplacer(
		`\{token\}`, `[A-Za-z0-9_-]{100,}={0,2}`, `\{timetoken\}`, `[0-9]{17}`, `\{any\}`, `[^"]+`,
	).Replace(quoted)
	return regexp.MustCompile("(?s)^" + quoted + "$")
}
