package pamtest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
)

// maxPage is how many objects one answer of App Context shows (documented).
const maxPage = 100

// objectsReply is an answer of App Context.
func objectsReply(status int, body any) reply {
	rep := textReply(status, encode(body))
	rep.header.Set("Content-Type", "application/json")
	return rep
}

func objectsError(status int, message string) reply {
	type inner struct {
		Message string `json:"message"`
		Source  string `json:"source"`
	}
	return objectsReply(status, struct {
		Status int   `json:"status"`
		Error  inner `json:"error"`
	}{status, inner{message, "objects"}})
}

func notFound() reply { return objectsError(http.StatusNotFound, "Requested object was not found.") }

func objectsFull() reply {
	return objectsError(http.StatusInsufficientStorage, "The emulator keeps no more metadata.")
}

func badInput() reply {
	return objectsError(http.StatusBadRequest, "Request payload contained invalid input.")
}

func dataOf(value any) jsonObject { return jsonObject{{"status", http.StatusOK}, {"data", value}} }

// wants tells which fields a request asks to include; prefix is that of the object they belong to, like "channel.".
func (c *call) wants(prefix string) func(name string) bool {
	include := splitNames(c.values.Get("include"))
	return func(name string) bool { return slices.Contains(include, prefix+name) }
}

// page cuts out what the request asks for of a list, and says where the next page starts. Filters and sorting are ignored.
func (c *call) page(items []any) jsonObject {
	total := len(items)
	limit, err := strconv.Atoi(c.values.Get("limit"))
	if err != nil || limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	first := 0
	if text, err := base64.RawURLEncoding.DecodeString(c.values.Get("start")); err == nil {
		first, _ = strconv.Atoi(string(text))
	}
	first = min(max(first, 0), total)
	last := min(first+limit, total)
	o := dataOf(append([]any{}, items[first:last]...))
	if count := c.values.Get("count"); count == "1" || count == "true" {
		o = append(o, jsonField{"totalCount", total})
	}
	if last > first {
		o = append(o, jsonField{"next", base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(last)))})
	}
	if first > 0 {
		o = append(o, jsonField{"prev", base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(max(0, first-limit))))})
	}
	return o
}

func (k *objectKind) need(perm pam.Permission, id string) need {
	if k == userKind {
		return uuidNeed(perm, id)
	}
	return channelNeed(perm, id)
}

func (s *Server) listUsers(_ context.Context, c *call) reply  { return s.listObjects(c, userKind) }
func (s *Server) listSpaces(_ context.Context, c *call) reply { return s.listObjects(c, spaceKind) }
func (s *Server) getUser(_ context.Context, c *call) reply    { return s.getObject(c, userKind) }
func (s *Server) getSpace(_ context.Context, c *call) reply   { return s.getObject(c, spaceKind) }
func (s *Server) setUser(_ context.Context, c *call) reply    { return s.setObject(c, userKind) }
func (s *Server) setSpace(_ context.Context, c *call) reply   { return s.setObject(c, spaceKind) }
func (s *Server) removeUser(_ context.Context, c *call) reply { return s.removeObject(c, userKind) }
func (s *Server) removeSpace(_ context.Context, c *call) reply {
	return s.removeObject(c, spaceKind)
}

// listObjects lists the metadata of all users or channels. At PubNub the keyset says whether clients may; here any good token will do.
func (s *Server) listObjects(c *call, kind *objectKind) reply {
	if rep, ok := s.authorize(c); !ok {
		return rep
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	records := s.hub.objects.of(kind)
	items := make([]any, 0, len(records))
	for _, id := range slices.Sorted(maps.Keys(records)) {
		items = append(items, kind.show(records[id], c.wants("")))
	}
	return objectsReply(http.StatusOK, c.page(items))
}

// getObject returns the metadata of a user or channel: permission get.
func (s *Server) getObject(c *call, kind *objectKind) reply {
	if rep, ok := s.authorize(c, kind.need(pam.Get, c.data.id)); !ok {
		return rep
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.hub.objects.of(kind)[c.data.id]
	if r == nil {
		return notFound()
	}
	return objectsReply(http.StatusOK, dataOf(kind.show(r, c.wants(""))))
}

// setObject changes the fields that the body names: permission update.
func (s *Server) setObject(c *call, kind *objectKind) reply {
	if rep, ok := s.authorize(c, kind.need(pam.Update, c.data.id)); !ok {
		return rep
	}
	var change map[string]json.RawMessage
	if err := json.Unmarshal(c.body, &change); err != nil || change == nil {
		return badInput()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.hub.objects
	old := st.of(kind)[c.data.id]
	if match := c.header.Get("If-Match"); match != "" && (old == nil || old.etag != match) {
		return objectsError(http.StatusPreconditionFailed, kind.name+" to update has been modified after it was read.")
	}
	r := old.changed(c.data.id, change, slices.Concat(kind.fields, extraFields), s.clockLocked())
	if !put(st, st.of(kind), c.data.id, r) {
		return objectsFull()
	}
	c.acted = true
	return objectsReply(http.StatusOK, dataOf(kind.show(r, c.wants(""))))
}

// removeObject forgets the metadata of a user or channel: permission delete. Memberships stay.
func (s *Server) removeObject(c *call, kind *objectKind) reply {
	if rep, ok := s.authorize(c, kind.need(pam.Delete, c.data.id)); !ok {
		return rep
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	remove(&s.hub.objects, s.hub.objects.of(kind), c.data.id)
	c.acted = true
	return objectsReply(http.StatusOK, dataOf(nil))
}

// relation is one side of memberships: the channels of a user, or the users of a channel.
type relation struct {
	own, other *objectKind
	name       string // of the other side in JSON: "channel" or "uuid"
}

var (
	membershipsOf = relation{userKind, spaceKind, "channel"}
	membersOf     = relation{spaceKind, userKind, "uuid"}
)

// edge is the membership of the request's object with another.
func (rel relation) edge(own, other string) edge {
	if rel.own == userKind {
		return edge{own, other}
	}
	return edge{other, own}
}

// otherOf returns the other end of a membership of own, if it is one.
func (rel relation) otherOf(e edge, own string) (string, bool) {
	if rel.own == userKind {
		return e.space, e.user == own
	}
	return e.user, e.space == own
}

func (s *Server) getMemberships(_ context.Context, c *call) reply {
	return s.getRelation(c, membershipsOf)
}

func (s *Server) getMembers(_ context.Context, c *call) reply { return s.getRelation(c, membersOf) }

// getRelation lists memberships: permission get on the user or channel whose they are.
func (s *Server) getRelation(c *call, rel relation) reply {
	if rep, ok := s.authorize(c, rel.own.need(pam.Get, c.data.id)); !ok {
		return rep
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return objectsReply(http.StatusOK, c.page(s.hub.objects.related(c, rel)))
}

// related shows the memberships of the request's object.
func (st *objectStore) related(c *call, rel relation) []any {
	found := make(map[string]*record)
	for e, r := range st.members {
		if other, ok := rel.otherOf(e, c.data.id); ok {
			found[other] = r
		}
	}
	items := make([]any, 0, len(found))
	for _, other := range slices.Sorted(maps.Keys(found)) {
		far := jsonObject{{"id", other}}
		if meta := st.of(rel.other)[other]; meta != nil && c.wants("")(rel.name) {
			far = rel.other.show(meta, c.wants(rel.name+"."))
		}
		r := found[other]
		o := append(jsonObject{{rel.name, far}}, r.fieldsOf(included(c.wants("")))...)
		items = append(items, r.stamp(o))
	}
	return items
}

// setMemberships sets and removes channels of a user: permission join on each channel, and update on the user.
func (s *Server) setMemberships(_ context.Context, c *call) reply {
	ask, ok := parseRelations(c.body, membershipsOf)
	if !ok {
		return badInput()
	}
	if rep, ok := s.authorize(c, channelNeed(pam.Join, ask.names()...), uuidNeed(pam.Update, c.data.id)); !ok {
		return rep
	}
	return s.setRelation(c, membershipsOf, ask)
}

// setMembers sets and removes users of a channel: permission manage on the channel.
func (s *Server) setMembers(_ context.Context, c *call) reply {
	ask, ok := parseRelations(c.body, membersOf)
	if !ok {
		return badInput()
	}
	if rep, ok := s.authorize(c, channelNeed(pam.Manage, c.data.id)); !ok {
		return rep
	}
	return s.setRelation(c, membersOf, ask)
}

// relationsAsk is the body of a change of memberships.
type relationsAsk struct {
	set    map[string]map[string]json.RawMessage // fields by the id of the other side
	remove []string
}

func (a relationsAsk) names() []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Keys(a.set)), a.remove))))
}

func parseRelations(body []byte, rel relation) (relationsAsk, bool) {
	var wire struct {
		Set    []map[string]json.RawMessage `json:"set"`
		Remove []map[string]json.RawMessage `json:"delete"`
	}
	if json.Unmarshal(body, &wire) != nil {
		return relationsAsk{}, false
	}
	ask := relationsAsk{set: make(map[string]map[string]json.RawMessage)}
	for _, item := range wire.Set {
		id, ok := relationID(item, rel)
		if !ok {
			return relationsAsk{}, false
		}
		ask.set[id] = item
	}
	for _, item := range wire.Remove {
		id, ok := relationID(item, rel)
		if !ok {
			return relationsAsk{}, false
		}
		ask.remove = append(ask.remove, id)
	}
	return ask, true
}

func relationID(item map[string]json.RawMessage, rel relation) (string, bool) {
	var far struct {
		ID string `json:"id"`
	}
	err := json.Unmarshal(item[rel.name], &far)
	return far.ID, err == nil && far.ID != ""
}

func (s *Server) setRelation(c *call, rel relation, ask relationsAsk) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, now := &s.hub.objects, s.clockLocked()
	if !st.setRelations(c.data.id, rel, ask, now) {
		return objectsFull()
	}
	c.acted = true
	return objectsReply(http.StatusOK, c.page(st.related(c, rel)))
}

func (st *objectStore) setRelations(own string, rel relation, ask relationsAsk, now time.Time) bool {
	for other, change := range ask.set {
		key := rel.edge(own, other)
		if !put(st, st.members, key, st.members[key].changed(own+"\n"+other, change, extraFields, now)) {
			return false
		}
	}
	for _, other := range ask.remove {
		remove(st, st.members, rel.edge(own, other))
	}
	return true
}
