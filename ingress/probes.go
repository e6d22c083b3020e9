// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
)

const (
	probeInterval = 10 * time.Second
	probeTimeout  = 5 * time.Second
	maxProbed     = 256 // endpoints of one backend
)

// probes ask endpoints whether they are well, where routes want it.
type probes struct {
	b *backends

	mu      sync.Mutex
	running map[probe]context.CancelFunc
}

// probe is what is asked for. It goes the way of a request for the host: who
// may not answer requests does not answer this either.
type probe struct {
	host, service, path string
	port                route.Port
	interval            time.Duration
}

func newProbes(b *backends) *probes {
	return &probes{b: b, running: map[probe]context.CancelFunc{}}
}

// watch asks what the table wants asked, and nothing else any more.
func (b *backends) watch(t *route.Table) {
	want := map[probe]bool{}
	for host, to := range t.Backends() {
		if h := to.Health; h != nil && to.Weight > 0 && to.Refuse == "" && to.Protocol == route.HTTP {
			every := h.Interval
			if every == 0 {
				every = probeInterval
			}
			want[probe{concrete(host), to.Service, h.Path, to.Port, every}] = true
		}
	}
	p := b.probes
	p.mu.Lock()
	defer p.mu.Unlock()
	for have, stop := range p.running {
		if !want[have] {
			stop()
			delete(p.running, have)
		}
	}
	for w := range want {
		if p.running[w] == nil {
			ctx, stop := context.WithCancel(b.s.life)
			p.running[w] = stop
			go p.run(ctx, w)
		}
	}
}

// concrete is a name that a wildcard has.
func concrete(host string) string {
	if rest, wild := strings.CutPrefix(host, "*."); wild {
		return "c8s-health." + rest
	}
	return host
}

func (p *probes) run(ctx context.Context, w probe) {
	ticks := time.NewTicker(w.interval)
	defer ticks.Stop()
	known := map[netip.AddrPort]bool{}
	for {
		seen := map[netip.AddrPort]bool{}
		var avoid []netip.Addr
		for range maxProbed {
			to, err := p.b.s.cfg.Resolve(w.service, w.port, avoid)
			if err != nil || seen[to.Pod] {
				break
			}
			seen[to.Pod] = true
			well := p.ask(ctx, w, func(ctx context.Context) (Conn, error) { return p.b.connect(ctx, w.host, "", policy.ModeHTTP, to) })
			if ctx.Err() != nil {
				break
			}
			p.b.health.probed(to.Pod, well)
			avoid = append(avoid, to.Pod.Addr())
		}
		for at := range known {
			if !seen[at] { // gone, or not asked for any more
				p.b.health.probed(at, true)
			}
		}
		known = seen
		select {
		case <-ctx.Done():
			for at := range known {
				p.b.health.probed(at, true)
			}
			return
		case <-ticks.C:
		}
	}
}

func (p *probes) ask(ctx context.Context, w probe, dial func(context.Context) (Conn, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, min(probeTimeout, w.interval))
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.host+w.path, nil)
	if err != nil {
		return false
	}
	req.Close = true
	req.Header.Set("User-Agent", "c8s-ingress-health")
	if req.Write(conn) != nil {
		return false
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode >= 200 && res.StatusCode < 400
}
