// Package interop holds no code, only tests: PubNub's official Go SDK against the emulator of pam/pamtest and against the sidecar, and the parser
// and the signatures of pam against those of the SDK. It is a module of its own so that the SDK never becomes a dependency of the product. It
// never talks to PubNub itself.
package interop
