package config

import (
	"strings"

	"github.com/pamsidecar/pamsidecar/pam"
)

// permissions reads one side of a grant: resources or patterns.
func (d *decoder) permissions(n *node) pam.Permissions {
	var p pam.Permissions
	read := func(dst *map[string]pam.Permission, allowed pam.Permission, one string) func(*node) {
		return func(v *node) { *dst = d.entries(v, allowed, one) }
	}
	d.mapping(n, fields{known: map[string]func(*node){
		"channels": read(&p.Channels, pam.ChannelPermissions, "channel"),
		"spaces":   read(&p.Spaces, pam.ChannelPermissions, "space"),
		"groups":   read(&p.Groups, pam.GroupPermissions, "channel group"),
		"uuids":    read(&p.UUIDs, pam.UUIDPermissions, "UUID"),
		"users":    read(&p.Users, pam.UUIDPermissions, "user"),
	}})
	return p
}

// entries reads the names or patterns of one type of resource.
func (d *decoder) entries(n *node, allowed pam.Permission, one string) map[string]pam.Permission {
	if !d.is(n, mappingKind) {
		return nil
	}
	entries := make(map[string]pam.Permission, len(n.children))
	first := make(map[string]*node, len(n.children))
	for _, v := range n.children {
		name := v.key.text
		if v.key.kind == redactedKind {
			d.hidden = append(d.hidden, v.path())
			continue
		}
		if earlier := first[name]; earlier != nil {
			d.faultKey(v, "duplicate key %q: it already stands at line %d:%d: join the two lists", name, earlier.key.line, earlier.key.column)
			continue
		}
		first[name] = v
		entries[name] = d.mask(v, allowed, one)
	}
	return entries
}

// mask reads a list of permissions.
func (d *decoder) mask(n *node, allowed pam.Permission, one string) pam.Permission {
	names := strings.Join(allowed.Names(), ", ")
	switch n.kind {
	case textKind, numberKind, boolKind:
		d.fault(n, "must be a list of permissions in brackets, like [%s]: a %s takes %s", allowed.Names()[0], one, names)
		return 0
	}
	if !d.is(n, listKind) {
		return 0
	}
	var mask pam.Permission
	for _, item := range n.children {
		if !d.is(item, textKind) {
			continue
		}
		p, err := pam.ParsePermission(item.text)
		switch {
		case err != nil:
			d.fault(item, "unknown permission %q: a %s takes %s", item.text, one, names)
		case p&allowed == 0:
			d.fault(item, "%q is not for a %s, which takes %s", item.text, one, names)
		case mask&p != 0:
			d.fault(item, "%q is listed twice: remove one", item.text)
		}
		mask |= p
	}
	return mask
}

// meta reads the values a token carries for its readers.
func (d *decoder) meta(n *node) map[string]any {
	if !d.is(n, mappingKind) {
		return nil
	}
	meta := make(map[string]any, len(n.children))
	first := make(map[string]*node, len(n.children))
	for _, v := range n.children {
		key := v.key.text
		if v.key.kind == redactedKind {
			continue
		}
		if earlier := first[key]; earlier != nil {
			d.faultKey(v, "duplicate key %q: it already stands at line %d:%d: remove one of them", key, earlier.key.line, earlier.key.column)
			continue
		}
		first[key] = v
		meta[key] = d.metaValue(v)
	}
	return meta
}

func (d *decoder) metaValue(n *node) any {
	switch n.kind {
	case textKind:
		return n.text
	case boolKind:
		return n.text == "true"
	case numberKind:
		v, ok := decimal(n.text)
		if !ok {
			d.fault(n, "write it as a plain decimal number, or in quotes")
			return nil
		}
		return v
	case mappingKind, listKind:
		d.fault(n, "must be text, a number, true, false or null: Access Manager takes no lists and mappings here")
	}
	return nil
}
