// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestNodeAnswersNamesInDatagrams(t *testing.T) {
	w, a, _ := udpPair(t, Limits{})
	o := &datagramOracle{release: make(chan struct{})}
	a.proxy.Pause() // orders what follows with the reader
	a.proxy.cfg.DNS = o
	a.proxy.Resume()
	c := a.udp(webAddr)
	c.send(anyServer, "slow")
	c.send(anyServer, "mute")
	c.send(anyServer, "quick")
	c.want(anyServer, "re:quick")
	close(o.release)
	c.want(anyServer, "re:slow")
	w.ahead.Store(int64(2 * time.Hour))
	c.send(anyServer, "quick")
	a.wantRefusal("certificate-expired")
	if s := a.proxy.Stats(); s.FlowsOut != 0 {
		t.Errorf("%+v", s)
	}
}

// The pod may be gone when its answer comes, and another one have its address.
func TestAnswersToAPodThatIsGoneAreNotSent(t *testing.T) {
	_, a, _ := udpPair(t, Limits{})
	o := &datagramOracle{release: make(chan struct{}), asked: make(chan struct{}, 1)}
	a.proxy.Pause()
	a.proxy.cfg.DNS = o
	a.proxy.Resume()
	c := a.udp(webAddr)
	c.send(anyServer, "slow")
	<-o.asked
	a.pod(policytest.Web, webAddr).UID = "another"
	close(o.release)
	for a.proxy.queries.inUse() > 0 {
		time.Sleep(time.Millisecond)
	}
	c.send(anyServer, "quick")
	c.want(anyServer, "re:quick") // and nothing before it
}

type datagramOracle struct {
	release chan struct{}
	asked   chan struct{} // may be nil
}

func (o *datagramOracle) Answer(_ context.Context, asker Asker, query []byte, tcp bool) []byte {
	if tcp || asker.Addr.String() != webAddr || asker.Server.String() != anyServer || string(query) == "mute" {
		return nil
	}
	if string(query) == "slow" {
		if o.asked != nil {
			o.asked <- struct{}{}
		}
		<-o.release
	}
	return append([]byte("re:"), query...)
}
