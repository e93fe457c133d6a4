package pam

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Permission is a bit mask of what may be done with a resource. Any mask is a
// value: real tokens carry bits that no table documents. [Grant.Validate] checks
// a mask against the table before it is asked for.
type Permission uint64

// The bits of the service. Create is a legacy bit: no resource type of today
// documents it, but old tokens have it.
const (
	Read   Permission = 1
	Write  Permission = 2
	Manage Permission = 4
	Delete Permission = 8
	Create Permission = 16
	Get    Permission = 32
	Update Permission = 64
	Join   Permission = 128
)

// What PubNub's documentation allows for each type of resource.
const (
	ChannelPermissions Permission = 239 // all but Create
	GroupPermissions   Permission = 5   // Read and Manage
	UUIDPermissions    Permission = 104 // Delete, Get and Update
)

var permissionNames = [...]string{"read", "write", "manage", "delete", "create", "get", "update", "join"}

// String returns the names joined by commas, "read,write" for 3; bits without a
// name follow as one number, "read,0x100". The zero mask is "none".
func (p Permission) String() string {
	if p == 0 {
		return "none"
	}
	return strings.Join(p.Names(), ",")
}

// Names returns the lower-case names of the bits in bit order; bits without a
// name come last, as one hexadecimal number. It is empty for the zero mask.
func (p Permission) Names() []string {
	names := make([]string, 0, bits.OnesCount64(uint64(p)))
	for i, name := range permissionNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if rest := p >> len(permissionNames) << len(permissionNames); rest != 0 {
		names = append(names, "0x"+strconv.FormatUint(uint64(rest), 16))
	}
	return names
}

// ParsePermission returns the bit of one lower-case name.
func ParsePermission(name string) (Permission, error) {
	for i, known := range permissionNames {
		if name == known {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("%q is not a permission: use %s", name, strings.Join(permissionNames[:], ", "))
}

// Permissions is one side of a grant or a token: the resources named exactly, or
// the patterns. Each map goes from a name, or the text of a pattern, to its mask.
// A nil map is an empty one. Users and Spaces are older words for UUIDs and
// Channels; see [Grant.Folded].
type Permissions struct {
	Channels map[string]Permission
	Groups   map[string]Permission
	UUIDs    map[string]Permission
	Users    map[string]Permission
	Spaces   map[string]Permission
}

// section is one map of a Permissions, with the word that names it.
type section struct {
	name    string // "channels"
	one     string // "channel"
	allowed Permission
	entries map[string]Permission
}

// sections lists the five maps, always in the same order.
func (p Permissions) sections() [5]section {
	return [5]section{
		{"channels", "channel", ChannelPermissions, p.Channels},
		{"groups", "group", GroupPermissions, p.Groups},
		{"uuids", "UUID", UUIDPermissions, p.UUIDs},
		{"users", "user", UUIDPermissions, p.Users},
		{"spaces", "space", ChannelPermissions, p.Spaces},
	}
}

// folded moves spaces into channels and users into uuids.
func (p Permissions) folded() Permissions {
	return Permissions{
		Channels: union(p.Channels, p.Spaces),
		Groups:   p.Groups,
		UUIDs:    union(p.UUIDs, p.Users),
	}
}

// union returns the entries of both maps, the bits of a name in both joined. It
// changes neither, and returns one of them when the other is empty.
func union(a, b map[string]Permission) map[string]Permission {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return b
	}
	all := make(map[string]Permission, len(a)+len(b))
	for name, mask := range a {
		all[name] = mask
	}
	for name, mask := range b {
		all[name] |= mask
	}
	return all
}

// empty reports whether no map has an entry.
func (p Permissions) empty() bool {
	return len(p.Channels)+len(p.Groups)+len(p.UUIDs)+len(p.Users)+len(p.Spaces) == 0
}
