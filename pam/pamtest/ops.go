package pamtest

import (
	"slices"

	"github.com/pamsidecar/pamsidecar/pam"
)

// The operations of the data plane, as they appear in records, counters and faults.
const (
	OpPublish   pam.Op = "publish"   // publish, fire and signal
	OpSubscribe pam.Op = "subscribe" // the long poll
	OpPresence  pam.Op = "presence"  // heartbeat, leave, here now, where now, state
	OpGroups    pam.Op = "groups"    // channel groups
	OpObjects   pam.Op = "objects"   // App Context
	OpHistory   pam.Op = "history"   // fetching stored messages
)

// The values of [Fault.Op] that select more than one operation.
const (
	OpAll  pam.Op = "all"  // every request; the empty Op does too
	OpPAM  pam.Op = "pam"  // Access Manager: grant, revoke and time
	OpData pam.Op = "data" // the data plane
)

// OpOther is the [RequestRecord.Op] of a request with an unknown path, and of a browser's preflight.
const OpOther pam.Op = "other"

var (
	pamOps  = []pam.Op{pam.OpGrant, pam.OpRevoke, pam.OpTime}
	dataOps = []pam.Op{OpPublish, OpSubscribe, OpPresence, OpGroups, OpObjects, OpHistory}
)

func isData(op pam.Op) bool { return slices.Contains(dataOps, op) }

// knownSelector reports whether op may be a Fault.Op.
func knownSelector(op pam.Op) bool {
	return slices.Contains([]pam.Op{"", OpAll, OpPAM, OpData, OpOther}, op) || slices.Contains(pamOps, op) || isData(op)
}

// selectsOp reports whether the Fault.Op selector includes op.
func selectsOp(selector, op pam.Op) bool {
	switch selector {
	case "", OpAll:
		return true
	case OpPAM:
		return slices.Contains(pamOps, op)
	case OpData:
		return isData(op)
	}
	return selector == op
}
