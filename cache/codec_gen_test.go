package cache

import (
	"math"
	"time"

	"pgregory.net/rapid"

	"github.com/pamsidecar/pamsidecar/pam"
)

// genTime draws moments that a record can keep: the zero time, and UTC between
// 1678 and 2261 to the nanosecond.
func genTime() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "zero") {
			return time.Time{}
		}
		n := rapid.Int64Min(math.MinInt64+1).Filter(func(n int64) bool { return n != 0 }).Draw(t, "nanoseconds")
		return time.Unix(0, n).UTC()
	})
}

// genUntil draws any moment of the years people write.
func genUntil() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "zero") {
			return time.Time{}
		}
		first, last := time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
		seconds := rapid.Int64Range(first.Unix(), last.Unix()).Draw(t, "seconds")
		return time.Unix(seconds, rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC()
	})
}

func genPermissions() *rapid.Generator[pam.Permissions] {
	section := rapid.Custom(func(t *rapid.T) map[string]pam.Permission {
		if rapid.Bool().Draw(t, "absent") {
			return nil
		}
		return rapid.MapOfN(rapid.String(), rapid.Map(rapid.Uint64(), func(n uint64) pam.Permission { return pam.Permission(n) }), 0, 3).Draw(t, "entries")
	})
	return rapid.Custom(func(t *rapid.T) pam.Permissions {
		return pam.Permissions{
			Channels: section.Draw(t, "channels"), Groups: section.Draw(t, "groups"), UUIDs: section.Draw(t, "uuids"),
			Users: section.Draw(t, "users"), Spaces: section.Draw(t, "spaces"),
		}
	})
}

// genMeta draws meta as it comes back: whole numbers are int64, uint64 above.
func genMeta() *rapid.Generator[map[string]any] {
	value := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(v bool) any { return v }),
		rapid.Map(rapid.String(), func(v string) any { return v }), rapid.Map(rapid.Int64(), func(v int64) any { return v }),
		rapid.Map(rapid.Uint64Min(math.MaxInt64+1), func(v uint64) any { return v }),
		rapid.Map(rapid.Float64(), func(v float64) any { return v }),
	)
	return rapid.Custom(func(t *rapid.T) map[string]any {
		if rapid.Bool().Draw(t, "absent") {
			return nil
		}
		return rapid.MapOfN(rapid.String(), value, 1, 4).Draw(t, "meta")
	})
}

func genGrant() *rapid.Generator[Grant] {
	return rapid.Custom(func(t *rapid.T) Grant {
		g := Grant{
			Name: rapid.String().Draw(t, "name"),
			Grant: pam.Grant{
				TTL: time.Duration(rapid.Int64Range(1, 43200).Draw(t, "minutes")) * time.Minute, UUID: rapid.String().Draw(t, "uuid"),
				AnyUUID: rapid.Bool().Draw(t, "any"), Resources: genPermissions().Draw(t, "resources"),
				Patterns: genPermissions().Draw(t, "patterns"), Meta: genMeta().Draw(t, "meta"),
			},
			Note: rapid.String().Draw(t, "note"), Loopback: rapid.Bool().Draw(t, "loopback"),
			RegrantAt: rapid.String().Draw(t, "regrant_at"), Until: genUntil().Draw(t, "until"),
		}
		if rapid.Bool().Draw(t, "has required") {
			g.Required = new(rapid.Bool().Draw(t, "required"))
		}
		return g
	})
}

func genToken() *rapid.Generator[Token] {
	return rapid.Custom(func(t *rapid.T) Token {
		return Token{
			Generation: rapid.Uint64().Draw(t, "generation"), Raw: pam.Secret(rapid.String().Draw(t, "raw")),
			Issued: genTime().Draw(t, "issued"), TTL: time.Duration(rapid.Int64Range(0, 43200).Draw(t, "ttl")) * time.Minute,
		}
	})
}

func genRecord() *rapid.Generator[*Record] {
	withdrawal := rapid.Custom(func(t *rapid.T) Withdrawal {
		return Withdrawal{
			Token: genToken().Draw(t, "token"), ID: rapid.String().Draw(t, "id"), Reason: rapid.String().Draw(t, "reason"),
			Since: genTime().Draw(t, "since"), Phase: Phase(rapid.String().Draw(t, "phase")), Closed: genTime().Draw(t, "closed"),
			Attempts: rapid.Int().Draw(t, "attempts"), Next: genTime().Draw(t, "next"), Failure: rapid.String().Draw(t, "failure"),
		}
	})
	event := rapid.Custom(func(t *rapid.T) Event {
		return Event{genTime().Draw(t, "at"), rapid.String().Draw(t, "text")}
	})
	return rapid.Custom(func(t *rapid.T) *Record {
		r := &Record{
			Name: rapid.String().Draw(t, "name"), Source: Source(rapid.String().Draw(t, "source")), Generation: rapid.Uint64().Draw(t, "generation"),
			Superseded: orNil(rapid.SliceOfN(genToken(), 0, 3).Draw(t, "superseded")),
			Withdrawn:  orNil(rapid.SliceOfN(withdrawal, 0, 3).Draw(t, "withdrawn")),
			GrantedFor: [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "granted_for")), Attempts: rapid.Int().Draw(t, "attempts"),
			LastAttempt: genTime().Draw(t, "last_attempt"), LastSuccess: genTime().Draw(t, "last_success"),
			NextAttempt: genTime().Draw(t, "next_attempt"), EndedAt: genTime().Draw(t, "ended_at"),
			UnaccountedUntil: genTime().Draw(t, "unaccounted"), Decision: rapid.Uint64().Draw(t, "decision"),
			Events: orNil(rapid.SliceOfN(event, 0, 3).Draw(t, "events")),
		}
		if rapid.Bool().Draw(t, "has grant") {
			r.Grant = new(genGrant().Draw(t, "grant"))
		}
		if rapid.Bool().Draw(t, "has current") {
			r.Current = new(genToken().Draw(t, "current"))
		}
		if rapid.Bool().Draw(t, "has failure") {
			r.Failure = &Failure{genTime().Draw(t, "failed at"), rapid.String().Draw(t, "failure")}
		}
		if rapid.Bool().Draw(t, "has block") {
			r.Block = &Block{rapid.Uint64().Draw(t, "block decision"), rapid.String().Draw(t, "block reason"), genTime().Draw(t, "blocked since")}
		}
		return r
	})
}

func orNil[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}
