// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
)

// backendConn is a connection into the mesh that http.Transport keeps.
type backendConn struct {
	Conn
	key  string // of what it may carry
	said said
	why  atomic.Pointer[error] // why it carries nothing any more
}

// said is what headers say about who answers, made once for a connection.
type said struct {
	workload       string
	evidence, leaf policy.Digest
}

func newBackendConn(conn Conn, key string) (*backendConn, error) {
	peer := conn.Peer()
	if peer == nil || peer.Leaf == nil {
		_ = conn.Close()
		return nil, errors.New("connecting into the mesh: nobody said who answers")
	}
	return &backendConn{Conn: conn, key: key, said: said{
		workload: peer.Claims.Workload,
		evidence: policy.Digest("sha256:" + hex.EncodeToString(peer.Claims.EvidenceHash[:])),
		leaf:     policy.DigestOf(peer.Leaf.Raw),
	}}, nil
}

// refuse ends the connection. What is written later goes nowhere.
func (c *backendConn) refuse(why error) {
	c.why.CompareAndSwap(nil, &why)
	_ = c.Conn.Close()
}

// Write implements net.Conn.
func (c *backendConn) Write(p []byte) (int, error) {
	if why := c.why.Load(); why != nil {
		return 0, fmt.Errorf("sending a request: %w", *why)
	}
	return c.Conn.Write(p)
}

// Through makes a Mesh of the datapath's dialer and of what says which manifest
// is in force.
func Through(d *datapath.Dialer, manifest func() *policy.Signed) Mesh { return through{d, manifest} }

type through struct {
	dialer   *datapath.Dialer
	manifest func() *policy.Signed
}

func (t through) Manifest() *policy.Signed { return t.manifest() }

func (t through) Dial(ctx context.Context, to resolve.Target, may func(workload string) policy.Decision) (Conn, error) {
	conn, err := t.dialer.Dial(ctx, to, may)
	if err != nil {
		return nil, err // and no typed nil
	}
	return conn, nil
}
