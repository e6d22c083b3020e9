// SPDX-License-Identifier: Apache-2.0

// Package gate is how the small programs that containerd starts for every pod
// and process, c8s-runtime and c8s-cni, ask the node daemon before they go on.
//
// Its invariant: only a whole answer of root's daemon that says "allowed" is a
// yes. Silence, a lost connection, half an answer or words that are not
// understood are refusals; ErrNoDaemon alone, nobody listening, is told apart.
//
// A connection carries one question and one answer: each is JSON after its
// length in four bytes, most significant first. The length is what lets the
// daemon notice a caller that has gone, and stop working for it.
package gate

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

// SocketName is the socket's file name inside the run folder.
const SocketName = "gate.sock"

// Limits of the protocol. The client's time is longer than the daemon's, so
// that the reason arrives; the daemon's is longer than the 30 seconds for which
// it waits for a pod's enrolment.
const (
	MaxRequest    = 8 << 20 // bytes: an OCI configuration has tens of kilobytes
	MaxAnswer     = 64 << 10
	AnswerWithin  = 40 * time.Second
	ClientTimeout = 45 * time.Second
)

// The operations.
const (
	opCreate = "create"
	opExec   = "exec"
	opLock   = "lock"
	opPing   = "ping"
)

// Judge answers the questions. A refusal is a policy.Decision; any other error
// refuses too. The context ends when the caller has gone.
type Judge interface {
	Create(ctx context.Context, r CreateRequest) error
	Exec(ctx context.Context, r ExecRequest) error
	Lock(ctx context.Context, r LockRequest) error
}

// CreateRequest asks whether a container or a sandbox may be made.
type CreateRequest struct {
	ID        string `json:"id"`               // of the container in containerd
	Namespace string `json:"namespace"`        // containerd's, not the pod's
	Config    []byte `json:"config"`           // config.json of the bundle, as the runtime will read it
	Passwd    []byte `json:"passwd,omitempty"` // etc/passwd of the root file system before anything ran or was mounted there: the image's own; nil: none
	Group     []byte `json:"group,omitempty"`  // etc/group likewise
}

// ExecRequest asks whether a process may be added to a running container.
type ExecRequest struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Process   []byte `json:"process"` // process.json, as the runtime will read it
	Config    []byte `json:"config"`  // config.json of the running container: what the process may not exceed
}

// LockRequest asks to lock a pod's link before anything runs behind it. It
// comes from the CNI chain, where no container of the pod exists yet.
type LockRequest struct {
	NetNS         string         `json:"netns"` // path of the network namespace
	Interface     string         `json:"interface"`
	HostInterface string         `json:"hostInterface"` // the node's end of the pair
	SandboxID     string         `json:"sandboxId"`
	PodNamespace  string         `json:"podNamespace"`
	PodName       string         `json:"podName"`
	PodUID        string         `json:"podUid"`
	Addresses     []netip.Prefix `json:"addresses"`
}

// request is a question: Op and the member of its name.
type request struct {
	Op     string         `json:"op"`
	Create *CreateRequest `json:"create,omitempty"`
	Exec   *ExecRequest   `json:"exec,omitempty"`
	Lock   *LockRequest   `json:"lock,omitempty"`
}

// answer says the same twice: a decision that is missing or was cut is no yes.
type answer struct {
	Allowed  bool            `json:"allowed"`
	Decision policy.Decision `json:"decision"`
}

// CodeUnanswered refuses what the judge could not decide: the text says why.
const CodeUnanswered policy.Code = "gate-unanswered"

const maxReason = 8 << 10 // bytes of an error that is passed on

// answerOf spells what a judge said.
func answerOf(err error) answer {
	if err == nil {
		return answer{true, policy.Decision{Allowed: true, Code: policy.CodeAllowed, Rule: "the node daemon"}}
	}
	var d policy.Decision
	if !errors.As(err, &d) || d.Allowed {
		d = policy.Decision{Code: CodeUnanswered, Rule: "the node daemon", Expected: "a decision", Actual: fmt.Sprintf("%.*s", maxReason, err)}
	}
	return answer{Decision: d}
}

// err is nil only for an answer that allows.
func (a answer) err() error {
	if a.Allowed != a.Decision.Allowed {
		return fmt.Errorf("the answer contradicts itself: allowed is %t, the decision's %t", a.Allowed, a.Decision.Allowed)
	}
	return a.Decision.Err()
}

func readRequest(r io.Reader) (request, error) {
	var q request
	if err := readMessage(r, &q, MaxRequest); err != nil {
		return request{}, err
	}
	return q, q.check()
}

// check refuses a request that is not exactly one question.
func (r request) check() error {
	given := 0
	for op, present := range map[string]bool{opCreate: r.Create != nil, opExec: r.Exec != nil, opLock: r.Lock != nil} {
		if !present {
			continue
		}
		if given++; op != r.Op {
			return fmt.Errorf("op is %.16q, but %q is given", r.Op, op)
		}
	}
	if r.Op == opPing || given == 1 {
		return nil
	}
	return fmt.Errorf("op is %.16q, and nothing of that name is given", r.Op)
}

// writeMessage sends v after its length.
func writeMessage(w io.Writer, v any, limit int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > limit {
		return fmt.Errorf("%d bytes are more than the %d of a message", len(body), limit)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// readMessage reads one message into v, which knows all of its members.
func readMessage(r io.Reader, v any, limit int) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if uint64(n) > uint64(limit) {
		return fmt.Errorf("a message of %d bytes, more than %d", n, limit)
	}
	body := io.LimitReader(r, int64(n))
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	// What follows the value inside the message, white space too, is not ours.
	if rest, err := io.Copy(io.Discard, io.MultiReader(d.Buffered(), body)); err != nil || rest > 0 {
		return errors.Join(fmt.Errorf("%d bytes after the value", rest), err)
	}
	return nil
}
