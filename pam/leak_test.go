package pam

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestNothingLeaks provokes every kind of failure and looks at everything that
// comes out of it for the token, the secret key, the signature and the path.
func TestNothingLeaks(t *testing.T) {
	token := testToken(t)
	secret := testKeys.SecretKey.Reveal()
	echo := func(status int) step {
		return func(r *http.Request) (*http.Response, error) {
			url := r.URL.String()
			body := fmt.Sprintf(`{"error":{"message":%q,"source":"grant","details":[{"message":%q,"location":%q}]},"message":%q}`,
				"bad request "+url, "secret "+secret+" token "+token, r.URL.EscapedPath(), r.URL.RawQuery)
			return reply(status, body)(r)
		}
	}
	withURL := func(r *http.Request) (*http.Response, error) {
		return nil, fmt.Errorf("proxy says no to %s with %s", r.URL, secret)
	}
	location := func(r *http.Request) (*http.Response, error) {
		return reply(302, "", "Location", r.URL.String()+"%zz")(r)
	}
	brokenBody := func(r *http.Request) (*http.Response, error) {
		resp, err := reply(200, "")(r)
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(token), failingReader{errors.New("cut at " + r.URL.String())}))
		return resp, err
	}
	steps := map[string]step{
		"dial": fail(errRefused), "hang": hang, "error with URL": withURL, "redirect": location, "broken body": brokenBody,
		"200 with the token": reply(200, token), "200 with a bad token": reply(200, `{"data":{"token":"`+token[:60]+`"}}`), "200 long": reply(200, strings.Repeat(token, 1000)),
		"200 with a wrong type": reply(200, `{"data":{"token":["`+token+`"]}}`), "token as error": reply(400, `{"error":"`+token+`"}`),
		"token cut in error": reply(400, `{"error":"no such `+token[:40]+`..."}`),
	}
	for _, status := range []int{300, 400, 401, 403, 404, 413, 414, 429, 500, 502, 503, 504} {
		steps[fmt.Sprint("echo ", status)] = echo(status)
	}
	var logged bytes.Buffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&logged)
	for name, s := range steps {
		synctest.Test(t, func(t *testing.T) {
			var shown []string
			client := newTestClient(t, ClientConfig{
				Transport:    &script{steps: []step{s, s, s, s, s, s}},
				AfterRequest: func(x Exchange) { shown = append(shown, fmt.Sprintf("%v %+v", x, x.Err)) },
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, grantErr := client.Grant(ctx, smallGrant())
			for _, err := range []error{grantErr, client.Revoke(ctx, Secret(token))} {
				if err == nil {
					t.Fatalf("%s: succeeded", name)
				}
				e := asError(t, err)
				shown = append(shown, e.Error(), e.Reason(), fmt.Sprintf("%v %+v %#v", e, *e, *e))
				for cause := error(e); cause != nil; cause = errors.Unwrap(cause) {
					shown = append(shown, fmt.Sprintf("%v %+v", cause, cause))
				}
			}
			for _, out := range shown {
				for _, forbidden := range []string{token, strings.TrimRight(token, "="), token[:24], secret, "/v3/pam", "signature=", "timestamp=", "v2."} {
					if strings.Contains(out, forbidden) {
						t.Errorf("%s: %q is in %s", name, forbidden, out)
					}
				}
				if strings.ContainsAny(out, "\r\n") {
					t.Errorf("%s: more than one line: %q", name, out)
				}
			}
		})
	}
	if logged.Len() > 0 {
		t.Errorf("something was logged: %s", logged.String())
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }
