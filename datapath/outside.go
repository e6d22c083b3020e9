// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/c8s-dev/c8s/datapath/external"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// Reasons of refusals of what would leave the mesh.
const (
	reasonExternalClaimed     = "external-claimed"
	reasonExternalNotTLS      = "external-not-tls"
	reasonHelloTimeout        = "external-hello-timeout"
	reasonExternalRefused     = "external-connection-refused"
	reasonExternalTimeout     = "external-timeout"
	reasonExternalUnreachable = "external-unreachable"
)

// externalRule begins Record.Rule of what an external rule let out of the mesh.
const externalRule = "external/"

// passage is a connection or a flow of a pod to an endpoint outside of the
// mesh: what is asked about it, now and at every Recheck. Its names are those
// that counted when it was made, so that it outlives the answers.
type passage struct {
	pod   *LocalPod
	query resolve.Query
	to    policy.Destination
	rule  *policy.External // that allowed it
}

// externalFor finds the rule that lets a pod reach a destination of which the
// routes say that it is no pod; unresolved is what they say. Only an address
// that nobody claims for a pod or for something that leads to pods can be meant:
// a lie about that can refuse a connection and never let one out.
func (p *Proxy) externalFor(pod *LocalPod, q resolve.Query, unresolved *Refusal) (*passage, *Refusal) {
	if !unresolved.verdict.MeansNoPod() || !p.hasExternals(pod) {
		return nil, unresolved
	}
	x := &passage{pod: pod, query: q, to: policy.Destination{
		Protocol: q.Protocol.String(), Addr: q.Dst,
		// What the cluster knows as a node's address, or serves from one, is as
		// good as the node's own.
		Local: unresolved.verdict != resolve.NoRoute,
	}}
	if p.cfg.Bindings != nil {
		x.to.Names = p.cfg.Bindings.Names(pod.UID, q.Dst.Addr())
	}
	if why := p.permitHere(x); why != nil {
		return nil, why
	}
	return x, nil
}

// permitHere is permit, for a destination that the node's own routes may know
// as its own.
func (p *Proxy) permitHere(x *passage) *Refusal {
	why := p.permit(x)
	if why == nil && !x.to.Local && p.ownAddr(x.to.Addr.Addr()) {
		x.to.Local = true
		why = p.permit(x)
	}
	return why
}

func (p *Proxy) hasExternals(pod *LocalPod) bool {
	signed := p.cfg.Mesh.Manifest()
	if signed == nil || signed.Manifest == nil {
		return false
	}
	w, ok := signed.Manifest.Workload(pod.Workload)
	return ok && len(w.External) > 0
}

// permit asks the manifest of this moment.
func (p *Proxy) permit(x *passage) *Refusal {
	signed := p.cfg.Mesh.Manifest()
	if signed == nil || signed.Manifest == nil {
		return refuse(reasonNoManifest, "manifest", "a signed manifest", "none")
	}
	rule, d := signed.Manifest.ExternalAllowed(x.pod.Workload, x.to)
	x.rule = rule
	return decided(d)
}

// judgePassage says why a passage may not be, or no longer, once all that its
// rule asks for was looked at.
func (p *Proxy) judgePassage(x *passage) *Refusal {
	pod, ok := p.cfg.Mesh.Pod(x.query.Src)
	if !ok || pod.UID != x.pod.UID || pod.Workload != x.pod.Workload {
		return refuse(reasonUnknownSource, "local pods", "the pod "+x.pod.Name, "it is gone")
	}
	if _, why := p.usable(pod); why != nil {
		return why
	}
	_, verdict := p.cfg.Mesh.Resolve(x.query)
	if !verdict.MeansNoPod() {
		return refuse(reasonExternalClaimed, "routes", "an address that is no pod's", x.to.Addr.String()+", which is claimed for a pod or a Service")
	}
	again := *x
	again.to.Local = x.to.Local || verdict != resolve.NoRoute
	if why := p.permit(&again); why != nil {
		return why
	}
	if again.rule.WantsHello() && x.to.Hello == nil {
		return refuse(reasonExternalNotTLS, externalRule+again.rule.Name, "a connection that began with a ClientHello", "one that was not looked at, since no rule asked for it then")
	}
	return nil
}

// passThrough carries a connection to an endpoint outside of the mesh. It
// returns why that may not be, or nil when it has been.
func (p *Proxy) passThrough(ctx context.Context, app *net.TCPConn, pod *LocalPod, rec *flow.Record, unresolved *Refusal) *Refusal {
	x, why := p.externalFor(pod, resolve.Query{Protocol: resolve.TCP, Src: rec.Src.Addr(), Dst: rec.Dst}, unresolved)
	if why != nil {
		return why
	}
	var first []byte
	if x.rule.WantsHello() {
		if first, why = p.hear(ctx, app, x); why != nil {
			return why
		}
		// It may have taken its time.
		if why = p.judgePassage(x); why != nil {
			return why
		}
	}
	rec.DstName = x.name()
	remote, why := p.reachOutside(ctx, x)
	if why != nil {
		return why
	}
	rec.Rule = externalRule + x.rule.Name
	d := &direct{judge: func() *Refusal { return p.judgePassage(x) }, first: first}
	return p.join(pod.UID, app, remote, d, func(at time.Time) {
		p.outside.conns.Add(1)
		p.allow(rec, at)
	}, func(res tunnel.Result, began time.Time) {
		res.Sent += int64(len(first))
		p.ended(*rec, res, began, res.Sent, res.Received)
		p.outside.sent.Add(res.Sent)
		p.outside.received.Add(res.Received)
	})
}

// name is what the destination is called, as far as anybody has said.
func (x *passage) name() string {
	switch {
	case x.to.Hello != nil && x.to.Hello.ServerName != "":
		return x.to.Hello.ServerName
	case len(x.to.Names) > 0:
		return x.to.Names[0]
	}
	return ""
}

// hear reads the connection's ClientHello and has the manifest judge it: not a
// byte has left the node, nor has anybody been connected to. It returns what it
// read.
func (p *Proxy) hear(ctx context.Context, app *net.TCPConn, x *passage) ([]byte, *Refusal) {
	rule := externalRule + x.rule.Name
	defer context.AfterFunc(ctx, func() { _ = app.Close() })()
	if err := app.SetReadDeadline(time.Now().Add(p.cfg.Limits.HelloTimeout)); err != nil {
		return nil, refuseErr(reasonExternalNotTLS, err)
	}
	var hello external.Hello
	var first []byte
	for buf := make([]byte, 4<<10); ; {
		n, err := app.Read(buf)
		first = append(first, buf[:n]...)
		complete, wrong := hello.Feed(buf[:n])
		switch {
		case complete:
			x.to.Hello = &policy.ClientHello{ServerName: hello.ServerName, Encrypted: hello.Encrypted}
			if why := p.permitHere(x); why != nil {
				return nil, why
			}
			return first, asNotTLS(rule, app.SetReadDeadline(time.Time{}))
		case wrong != nil:
			return nil, refuse(reasonExternalNotTLS, rule, "a TLS ClientHello", wrong.Error())
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, refuse(reasonHelloTimeout, rule, "a TLS ClientHello within "+p.cfg.Limits.HelloTimeout.String(), "less")
		case err != nil:
			return nil, asNotTLS(rule, err)
		}
	}
}

func asNotTLS(rule string, err error) *Refusal {
	if err == nil {
		return nil
	}
	return refuse(reasonExternalNotTLS, rule, "a TLS ClientHello", "the connection ended: "+err.Error())
}

// reachOutside connects to the endpoint as a process of the node would.
func (p *Proxy) reachOutside(ctx context.Context, x *passage) (*net.TCPConn, *Refusal) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Limits.ExternalDial)
	defer cancel()
	conn, err := p.dialOutside(ctx, "tcp", x.to.Addr)
	if err == nil {
		return conn.(*net.TCPConn), nil
	}
	var timeout net.Error
	code := reasonExternalUnreachable
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		code = reasonExternalRefused
	case errors.As(err, &timeout) && timeout.Timeout():
		code = reasonExternalTimeout
	}
	why := refuseErr(code, err)
	why.Rule = externalRule + x.rule.Name
	return nil, why
}
