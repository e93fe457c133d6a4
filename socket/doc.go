// Package socket is the token socket: it serves the tokens of a cache.Reader to
// local processes over HTTP, on a Unix socket and, for apps that share nothing but
// the network namespace, on a loopback address. The command builds a Handler and
// listeners here and runs them with NewServer; package admin uses Listen and
// PeerOf for its own socket.
//
// The package only reads: it never asks Access Manager for anything, never changes
// a record and never starts a grant. It never logs a token and never decides who
// may have one beyond the rules of the loopback listener; on the Unix socket the
// permissions of the socket and its directory decide.
package socket
