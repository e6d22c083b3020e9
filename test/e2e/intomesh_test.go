// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/ingress/identity"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// dialerEnv has this binary be an ingress without its HTTP side: it reads
// connections to make from its standard input and says what became of them.
const dialerEnv = "C8S_E2E_DIALER"

type dialerSpec struct {
	CDS       []string
	Operators policy.Operators
	Manifest  []byte
	Machine   devtee.Options
}

type dialerAsks struct {
	Target resolve.Target
	Text   string
	Hold   bool // and say how the connection ends
}

type dialerSays struct {
	Seen  netip.AddrPort // by the pod
	Local string
	Peer  string // workload of the certificate
	Text  string // that came back
	Code  string // of a refusal, or of an end
	Error string
}

func runDialer(spec string) error {
	var s dialerSpec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	signed, err := policy.Open(s.Manifest, s.Operators)
	if err != nil {
		return err
	}
	cds, err := client.New(client.Config{Addrs: s.CDS, Operators: s.Operators, Manifest: signed, Now: time.Now, Log: log})
	if err != nil {
		return err
	}
	machine, err := devtee.Open(s.Machine)
	if err != nil {
		return err
	}
	var dialer *datapath.Dialer
	id, err := identity.New(identity.Config{CDS: cds, Attester: machine, Changed: func() { dialer.Recheck() }, Rand: rand.Int64N, Now: time.Now, Log: log})
	if err != nil {
		return err
	}
	if dialer, err = datapath.NewDialer(datapath.DialerConfig{Word: id, Credential: id.Credential, Now: time.Now, Log: log}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go id.Run(ctx)
	go dialer.Run(ctx)
	for id.Ready() != nil {
		time.Sleep(10 * time.Millisecond)
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(dialerSays{Text: "ready"}); err != nil {
		return err
	}
	for in := json.NewDecoder(os.Stdin); ; {
		var ask dialerAsks
		if err := in.Decode(&ask); err != nil {
			return nil // the test has ended
		}
		if err := dialOnce(ctx, dialer, ask, out); err != nil {
			return err
		}
	}
}

func dialOnce(ctx context.Context, d *datapath.Dialer, ask dialerAsks, out *json.Encoder) error {
	var says dialerSays
	fail := func(err error) error {
		says.Error = err.Error()
		var why *datapath.Refusal
		var end *tunnel.ConnError
		if errors.As(err, &end) {
			says.Code = end.Reason.String()
		} else if errors.As(err, &why) {
			says.Code = string(why.Code)
		}
		return out.Encode(says)
	}
	c, err := d.Dial(ctx, ask.Target, func(string) policy.Decision { return policy.Decision{Allowed: true} })
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	if says.Seen, err = greeting(c); err != nil {
		return fail(err)
	}
	says.Local, says.Peer = c.LocalAddr().String(), c.Peer().Claims.Workload
	if ask.Hold {
		if err := out.Encode(says); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 1))
		return fail(err)
	}
	go func() {
		_, _ = io.WriteString(c, ask.Text)
		_ = c.CloseWrite()
	}()
	back, err := io.ReadAll(c)
	if err != nil {
		return fail(err)
	}
	says.Text = string(back)
	return out.Encode(says)
}

// dialerOn runs an ingress in a namespace.
type dialerOn struct {
	t   *testing.T
	in  *json.Encoder
	out *json.Decoder
}

func startDialer(t *testing.T, c *cluster.Cluster, ns *lab.NS, name string) *dialerOn {
	t.Helper()
	spec := dialerSpec{Operators: c.Operators, Machine: devtee.Options{Dir: vendor, Machine: name, Binary: binary, Operators: c.Operators}, Manifest: c.Envelope()}
	for _, r := range c.CDS {
		spec.CDS = append(spec.CDS, r.Addr())
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	cmd := ns.Command(context.WithoutCancel(t.Context()), os.Args[0])
	cmd.Env = append(os.Environ(), dialerEnv+"="+string(raw))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil || t.Failed() || strings.Contains(log.String(), "DATA RACE") {
			t.Errorf("the ingress %s: %v\n%s", name, err, log.String())
		}
	})
	d := &dialerOn{t: t, in: json.NewEncoder(in), out: json.NewDecoder(bufio.NewReader(out))}
	if says := d.says(); says.Text != "ready" {
		t.Fatalf("%+v", says)
	}
	return d
}

func (d *dialerOn) ask(ask dialerAsks) dialerSays {
	d.t.Helper()
	if err := d.in.Encode(ask); err != nil {
		d.t.Fatal(err)
	}
	return d.says()
}

func (d *dialerOn) says() (says dialerSays) {
	d.t.Helper()
	if err := d.out.Decode(&says); err != nil {
		d.t.Fatalf("the ingress says nothing: %v", err)
	}
	return says
}

// ingressTo lets an ingress reach server, and server only.
func ingressTo(port uint16) func(*policy.Manifest) {
	return func(m *policy.Manifest) {
		m.Ingress = []policy.IngressRule{{
			Name: "shop", Hosts: []string{"shop.example"},
			Backends: []policy.IngressBackend{{Workload: "server", Mode: policy.ModeHTTP, Ports: []uint16{port}}},
		}}
	}
}

func TestIngressReachesPodsOnEveryNode(t *testing.T) {
	c := newCluster(t)
	if err := c.Publish(t.Context(), ingressTo(echoPort)); err != nil {
		t.Fatal(err)
	}
	const canary = "CANARY-ingress-must-not-be-on-the-wire"
	wire, err := capture.Start(c.Lab.Wire, lab.WireBridge, capture.Options{Canary: []byte(canary), Pods: podPrefixes(c)})
	if err != nil {
		t.Fatal(err)
	}
	outside, a := c.Lab.Outside("outside"), c.Nodes[0]
	ingresses := []struct {
		name string
		addr netip.Addr
		*dialerOn
	}{
		{"outside", outside.Addr4, startDialer(t, c, outside.NS, "outside")},
		{"node-a", a.Lab.Addr4, startDialer(t, c, a.Lab.NS, "node-a-ingress")},
	}
	for _, node := range c.Nodes {
		for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
			server := openPod(t, node, "server", kind)
			serveEcho(t, server)
			for _, in := range ingresses {
				for _, pod := range []netip.Addr{server.Addr4, server.Addr6} {
					t.Run(fmt.Sprintf("from %s to a %s pod of %s, %s", in.name, kind, node.Lab.Name, pod), func(t *testing.T) {
						in.t = t
						want := strings.Repeat(canary, 20_000)
						got := in.ask(dialerAsks{Target: resolve.Target{Pod: netip.AddrPortFrom(pod, echoPort), Node: node.Lab.Addr4}, Text: want})
						if got.Error != "" || got.Text != want || got.Peer != "server" {
							t.Fatalf("%d bytes of %d from %q: %s %s", len(got.Text), len(want), got.Peer, got.Code, got.Error)
						}
						seen := in.addr
						if pod.Is6() {
							four := seen.As4()
							seen = netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b, 12: four[0], four[1], four[2], four[3]})
						}
						if got.Seen.Addr() != seen || got.Seen.String() != got.Local {
							t.Errorf("the pod sees %s, the ingress says %s, its host is %s", got.Seen, got.Local, in.addr)
						}
					})
				}
			}
			if err := node.RemovePod(server); err != nil {
				t.Fatal(err)
			}
		}
	}
	onlyTunnels(t, wire)
	flows, err := c.Nodes[1].Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]int{}
	for _, r := range flows {
		if r.Verdict == flow.Allowed && r.Rule == "ingress[shop].backends[server/http]" {
			by[r.SrcID]++
		}
	}
	if len(by) != 2 {
		t.Errorf("records of %v, want those of two ingresses", by)
	}
}

func TestIngressIsHeldToTheManifestAndTheDenyList(t *testing.T) {
	c := newCluster(t)
	if err := c.Publish(t.Context(), ingressTo(echoPort)); err != nil {
		t.Fatal(err)
	}
	node := c.Nodes[1]
	server, other := openPod(t, node, "server", lab.Routed), openPod(t, node, "stranger", lab.Bridged)
	serveEcho(t, server)
	serveEcho(t, other)
	in := startDialer(t, c, c.Lab.Outside("outside").NS, "outside")
	to := func(p *cluster.Pod, port uint16) dialerAsks {
		return dialerAsks{Target: resolve.Target{Pod: netip.AddrPortFrom(p.Addr4, port), Node: node.Lab.Addr4}}
	}
	for name, tt := range map[string]struct {
		ask  dialerAsks
		code string
	}{
		"workload of no rule":    {to(other, echoPort), "ingress-workload-not-allowed"},
		"port of no rule":        {to(server, otherPort), "ingress-port-not-allowed"},
		"node without the pod":   {dialerAsks{Target: resolve.Target{Pod: netip.AddrPortFrom(server.Addr4, echoPort), Node: c.Nodes[0].Lab.Addr4}}, "peer-refused-certificate"},
		"address that is no pod": {dialerAsks{Target: resolve.Target{Pod: netip.AddrPortFrom(node.Lab.PodCIDR4.Addr().Next().Next().Next().Next().Next().Next(), echoPort), Node: node.Lab.Addr4}}, "peer-refused-certificate"},
	} {
		if got := in.ask(tt.ask); got.Code != tt.code {
			t.Errorf("%s: %+v, want %s", name, got, tt.code)
		}
	}
	held := to(server, echoPort)
	held.Hold = true
	if got := in.ask(held); got.Error != "" {
		t.Fatalf("%+v", got)
	}
	if err := c.Publish(t.Context(), ingressTo(closedPort)); err != nil {
		t.Fatal(err)
	}
	if got := in.says(); got.Code != "policy-changed" {
		t.Errorf("the manifest forbids the connection, and it ended with %+v", got)
	}
	if err := c.Publish(t.Context(), ingressTo(echoPort)); err != nil {
		t.Fatal(err)
	}
	got := in.ask(held)
	for end := time.Now().Add(20 * time.Second); got.Code == "ingress-port-not-allowed" && time.Now().Before(end); got = in.ask(held) {
		time.Sleep(10 * time.Millisecond) // the ingress hears of the manifest by itself
	}
	if got.Error != "" {
		t.Fatalf("%+v", got)
	}
	machine, err := c.Machine("outside")
	if err != nil {
		t.Fatal(err)
	}
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	cred, err := cl.EnrolIngress(t.Context(), machine)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Deny(t.Context(), policy.Denial{Kind: policy.DenyMachine, Value: cred.Peer.Claims.Machine, Reason: "lost in a test"}); err != nil {
		t.Fatal(err)
	}
	if got := in.says(); got.Code != "denied" && got.Code != "policy-changed" {
		t.Errorf("the operators deny the ingress, and its connection ended with %+v", got)
	}
}
