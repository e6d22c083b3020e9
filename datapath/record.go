// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/tunnel"
)

func (p *Proxy) refused(rec flow.Record, why *Refusal) {
	rec.Time, rec.Verdict = p.cfg.Now(), flow.Refused
	rec.Reason, rec.Rule, rec.Expected, rec.Actual = string(why.Code), why.Rule, why.Expected, why.Actual
	p.cfg.Flows.Add(rec)
}

// ended records the end of a connection that was allowed. sent and received
// are as the pod that connected sees them.
func (p *Proxy) ended(rec flow.Record, res tunnel.Result, began time.Time, sent, received int64) {
	rec.Time = p.cfg.Now()
	rec.Verdict, rec.Duration = flow.Closed, rec.Time.Sub(began)
	rec.BytesSent, rec.BytesReceived = sent, received
	rec.Reason = res.Reason.String()
	if res.Refused {
		rec.Verdict = flow.Refused
		rec.Rule = "the other node's answer"
	}
	var why *Refusal
	switch {
	case errors.As(res.Why, &why): // this side ended it
		rec.Rule, rec.Expected, rec.Actual = why.Rule, why.Expected, why.Actual
		if why.denied {
			rec.Reason = string(why.Code)
		}
	case res.Why != nil:
		rec.Actual = res.Why.Error()
	case res.Err != nil:
		rec.Actual = res.Err.Error()
		var alert *net.OpError
		if errors.As(res.Err, &alert) && alert.Op == "remote error" {
			rec.Verdict, rec.Reason = flow.Refused, reasonPeerRefused
		}
	}
	p.cfg.Flows.Add(rec)
}
