// Package pamtest is an emulator of PubNub for software that works with Access Manager v3: it checks, grants and revokes tokens as the service
// does, lets the official SDKs publish and subscribe with them (or refuses them), answers with the service's own bodies, and misbehaves on demand.
//
// It is called by tests (of this project and of its users), by "pamsidecar dev" and by "pamsidecar emulator". A [Server] is an http.Handler
// for real sockets; [Server.Transport] is the same thing without sockets, fit for a testing/synctest bubble; [Server.Handler] adds a control
// API for scripts.
//
// It never contacts PubNub, starts no goroutine, and its tokens mean nothing to PubNub: they have the real layout, but their signature is
// made with a key of the emulator's own. docs/EMULATOR.md lists what is left out. Where the service's behaviour is not known, the comment at
// the place says so.
package pamtest
