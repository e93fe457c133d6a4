// Package pam speaks PubNub Access Manager v3 (PAM v3): it validates a grant,
// signs and sends it, parses the token that comes back, and revokes tokens.
//
// Its callers are the refresher, which alone grants and revokes; cache and
// config, which share the [Grant] type and read tokens; and the command line,
// which parses and explains them.
//
// It never decides when to grant, never stores anything, and never verifies the
// signature inside a token: that is made with PubNub's own key, so nobody else
// can. It never puts a secret key, a token or a URL into an error, and it logs
// nothing at all.
//
// Facts about the service come from PubNub's public documentation and from the
// sources and recorded tests of its public SDKs.
package pam
