// SPDX-License-Identifier: Apache-2.0

package tunnel

// Reason is why a stream was reset or refused. It travels in RST and REFUSE
// frames as one byte: a short code for the other side, never detail.
type Reason uint8

// The numbers are part of the wire format; new ones are only appended.
const (
	ReasonNone              Reason = iota // the stream ended in order
	ReasonReset                           // the application reset its connection
	ReasonAborted                         // answer to the other side's reset
	ReasonConnectionRefused               // nobody listens at the destination
	ReasonUnreachable                     // the destination pod could not be reached
	ReasonDialTimeout                     // the destination pod did not answer in time
	ReasonNotAllowed                      // the manifest's peer rules do not allow it
	ReasonSourceMismatch                  // source address is not in the peer's certificate
	ReasonDestMismatch                    // destination is not the pod this tunnel was opened to
	ReasonNotEnrolled                     // the destination pod has no certificate
	ReasonTooMany                         // a connection limit was reached
	ReasonIdle                            // nothing moved for the idle limit
	ReasonPolicyChanged                   // no longer allowed, or the certificate expired
	ReasonShutdown                        // the daemon is ending
	ReasonTunnelLost                      // the tunnel broke under the stream; never sent
	ReasonStalled                         // reset while the other side did not read; never sent
	ReasonInternal                        // the other daemon failed
	ReasonDenied                          // the operators deny one of the two ends
	reasonCount
)

// String is the stable kebab-case name used in flow records and metrics.
func (r Reason) String() string {
	names := [reasonCount]string{
		"", "reset", "aborted", "connection-refused", "unreachable", "dial-timeout", "not-allowed",
		"source-mismatch", "destination-mismatch", "destination-not-enrolled", "too-many-connections",
		"idle-timeout", "policy-changed", "shutdown", "tunnel-lost", "stalled", "internal", "denied",
	}
	if int(r) >= len(names) {
		return "unknown"
	}
	return names[r]
}

// final reports whether the tunnel, not only the stream, is at its end: the
// other side ended it, or the pod it was opened to is gone. Its connection may
// stay open for a moment.
func (r Reason) final() bool {
	switch r {
	case ReasonNotEnrolled, ReasonPolicyChanged, ReasonShutdown, ReasonDenied:
		return true
	default:
		return false
	}
}
