package pamtest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// objectKind is what App Context keeps metadata of.
type objectKind struct {
	name   string   // in error texts
	fields []string // shown always, in this order
}

var (
	userKind  = &objectKind{"User", []string{"name", "externalId", "profileUrl", "email"}}
	spaceKind = &objectKind{"Channel", []string{"name", "description"}}
)

// extraFields are shown when the request asks to include them. Memberships have only these.
var extraFields = []string{"type", "status", "custom"}

// record is the metadata of a user or channel, or a membership. A record does not change; a newer one takes its place.
type record struct {
	id      string
	fields  map[string]json.RawMessage
	updated time.Time
	etag    string
}

func (r *record) size() int {
	n := messageOverhead + len(r.id)
	for name, value := range r.fields {
		n += len(name) + len(value)
	}
	return n
}

// edge is the key of a membership.
type edge struct{ user, space string }

// objectStore is App Context.
type objectStore struct {
	users, spaces map[string]*record
	members       map[edge]*record
	bytes         int
}

func newObjectStore() objectStore {
	return objectStore{users: make(map[string]*record), spaces: make(map[string]*record), members: make(map[edge]*record)}
}

func (st *objectStore) of(kind *objectKind) map[string]*record {
	if kind == userKind {
		return st.users
	}
	return st.spaces
}

// put stores a record in place of an older one; false if there is no room.
func put[K comparable](st *objectStore, records map[K]*record, key K, r *record) bool {
	grown := r.size()
	if old := records[key]; old != nil {
		grown -= old.size()
	}
	if st.bytes+grown > maxObjects {
		return false
	}
	st.bytes += grown
	records[key] = r
	return true
}

func remove[K comparable](st *objectStore, records map[K]*record, key K) {
	if old := records[key]; old != nil {
		st.bytes -= old.size()
		delete(records, key)
	}
}

// changed is the record with the fields of change in place of its own. Fields that App Context does not know are left out.
func (r *record) changed(id string, change map[string]json.RawMessage, known []string, now time.Time) *record {
	next := &record{id: id, fields: make(map[string]json.RawMessage), updated: now}
	if r != nil {
		next.fields = maps.Clone(r.fields)
	}
	for _, name := range known {
		if value, ok := change[name]; ok {
			next.fields[name] = slices.Clone(value)
		}
	}
	hash := sha256.New()
	hash.Write([]byte(id))
	for _, name := range known {
		hash.Write([]byte("\n" + name + "="))
		hash.Write(next.fields[name])
	}
	next.etag = hex.EncodeToString(hash.Sum(nil)[:16])
	return next
}

// jsonField is one member of a JSON object.
type jsonField struct {
	name  string
	value any
}

// jsonObject is a JSON object with its members in order.
type jsonObject []jsonField

// MarshalJSON writes the members in their order.
func (o jsonObject) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, f := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, encode(f.name)...), ':')
		b = append(b, encode(f.value)...)
	}
	return append(b, '}'), nil
}

// fieldsOf returns fields of a record, null where it has none.
func (r *record) fieldsOf(names []string) (o jsonObject) {
	for _, name := range names {
		o = append(o, jsonField{name, r.fields[name]}) // a nil RawMessage is null
	}
	return o
}

// stamp ends the JSON of a record.
func (r *record) stamp(o jsonObject) jsonObject {
	return append(o, jsonField{"updated", r.updated.UTC().Format("2006-01-02T15:04:05.999999Z")}, jsonField{"eTag", r.etag})
}

// show is the metadata of a user or channel, with the extra fields for which wanted is true.
func (kind *objectKind) show(r *record, wanted func(name string) bool) jsonObject {
	o := append(jsonObject{{"id", r.id}}, r.fieldsOf(kind.fields)...)
	return r.stamp(append(o, r.fieldsOf(included(wanted))...))
}

func included(wanted func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(extraFields), func(name string) bool { return !wanted(name) })
}
