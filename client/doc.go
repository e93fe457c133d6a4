// Package client holds what travels over the token socket of a sidecar: the JSON
// documents an app receives and the words in them. Package socket writes them,
// apps and the command line read them. The package knows nothing of the sidecar's
// inside, opens no connection and imports only the standard library.
package client
