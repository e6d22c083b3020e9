// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"text/tabwriter"
	"time"

	"github.com/miekg/dns"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/bench/load"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

const (
	clusterName = "dns-version.cluster.local." // answered from memory, like a Service
	outsideName = "api.example.com."
	dnsWorkers  = 32
)

// dnsSite is one way for a pod to have names answered: by a plain server in
// its node's namespace, or by the node daemon.
type dnsSite struct {
	pod    *lab.Pod
	server netip.AddrPort
	pid    int // of the server
	close  func() error
}

// runPlainDNS answers every question with one record, at the address in the
// environment, with the library that the node uses too.
func runPlainDNS(ctx context.Context) error {
	pc, err := net.ListenPacket("udp", os.Getenv("BENCH_DNS"))
	if err != nil {
		return err
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(answerPlain), NotifyStartedFunc: func() { fmt.Println("ready") }}
	defer context.AfterFunc(ctx, func() { _ = s.Shutdown() })()
	return s.ActivateAndServe()
}

func answerPlain(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	hdr := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 3600}
	if hdr.Rrtype == dns.TypeTXT {
		m.Answer = []dns.RR{&dns.TXT{Hdr: hdr, Txt: []string{"1.1.0"}}}
	} else {
		m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.IPv4(192, 0, 2, 1)}}
	}
	_ = w.WriteMsg(m)
}

// startPlainDNS runs runPlainDNS in a namespace.
func startPlainDNS(ctx context.Context, host *lab.Host) (netip.AddrPort, int, error) {
	at := netip.AddrPortFrom(host.Addr4, 53)
	self, err := os.Executable()
	if err != nil {
		return at, 0, err
	}
	cmd := host.Command(ctx, self, "plain-dns")
	cmd.Env, cmd.Stderr = append(os.Environ(), "BENCH_DNS="+at.String()), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return at, 0, err
	}
	if err := cmd.Start(); err != nil {
		return at, 0, err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return at, 0, fmt.Errorf("starting the plain DNS server: %w", err)
	}
	return at, cmd.Process.Pid, nil
}

func newPlainDNS(ctx context.Context) (*dnsSite, error) {
	l, err := lab.New(ctx, lab.Options{Name: "bench-dns", Nodes: []lab.NodeSpec{{Name: "node-a"}}})
	if err != nil {
		return nil, err
	}
	s := &dnsSite{close: l.Close}
	if s.server, s.pid, err = startPlainDNS(ctx, &l.Node("node-a").Host); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.pod, err = l.Node("node-a").AddPod(ctx, lab.PodSpec{Name: "client"})
	return s, err
}

// newNodeDNS is C8s itself, without the budget of a pod, and a plain server
// next door as its upstream.
func newNodeDNS(ctx context.Context, binary string) (*dnsSite, error) {
	client := workload("client")
	client.DNS = []string{outsideName[:len(outsideName)-1]}
	c, err := cluster.New(ctx, cluster.Options{
		Binary: binary, Name: "bench-names", Nodes: []string{"node-a"}, Outside: []string{"upstream"}, Workloads: []policy.Workload{client},
		NodeFlags: []string{"--log-level", "warn", "--dns-upstream", "10.80.0.202", "--dns-rate", "10000000"}, // the lab's second host outside
	})
	if err != nil {
		return nil, err
	}
	if _, _, err := startPlainDNS(ctx, c.Lab.Outside("upstream")); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	p, err := c.Nodes[0].AddPod(ctx, "client", lab.PodSpec{Name: "client", Images: []string{string(image("client"))}})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s := &dnsSite{pod: p.Pod, server: netip.MustParseAddrPort(nodeDNS), pid: c.Nodes[0].PID(), close: c.Close}
	return s, p.WaitState(ctx, agent.StateOpen, "")
}

// ask measures answers to one question, so many under way at once.
func (s *dnsSite) ask(ctx context.Context, name string, qtype uint16, workers int, d time.Duration) (load.RequestResult, error) {
	query, err := new(dns.Msg).SetQuestion(name, qtype).Pack()
	if err != nil {
		return load.RequestResult{}, err
	}
	conns := make([]net.Conn, workers)
	for i := range conns {
		if conns[i], err = s.pod.Dial(ctx, "udp", s.server.String()); err != nil {
			return load.RequestResult{}, err
		}
		defer conns[i].Close()
	}
	return load.Calls(ctx, workers, d, func(_ context.Context, worker int) (int, error) {
		conn, buf := conns[worker], make([]byte, 512)
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return 0, err
		}
		if _, err := conn.Write(query); err != nil {
			return 0, err
		}
		n, err := conn.Read(buf)
		if err == nil && (n < len(query) || buf[3]&0xf != dns.RcodeSuccess || buf[7] != 1) {
			err = fmt.Errorf("answered %x", buf[:n])
		}
		return 1, err
	})
}

// namesRow is a scenario's medians.
type namesRow struct {
	Scenario string  `json:"scenario"`
	Unit     string  `json:"unit"`
	Plain    float64 `json:"plain"`
	Node     float64 `json:"node"`
	Ratio    float64 `json:"nodeToPlain"`
}

type namesResults []namesRow

func runDNS(ctx context.Context, o options) (part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the labs
	plain, err := newPlainDNS(ctx)
	if err != nil {
		return nil, err
	}
	defer plain.close()
	node, err := newNodeDNS(ctx, o.Binary)
	if err != nil {
		return nil, err
	}
	defer node.close()
	var out namesResults
	for _, sc := range []struct {
		what    string
		name    string
		qtype   uint16
		workers int
	}{
		{"a name of the cluster, 1 at a time", clusterName, dns.TypeTXT, 1},
		{fmt.Sprintf("a name of the cluster, %d at once", dnsWorkers), clusterName, dns.TypeTXT, dnsWorkers},
		{fmt.Sprintf("a cached name, %d at once", dnsWorkers), outsideName, dns.TypeA, dnsWorkers},
	} {
		say("answers: %s", sc.what)
		var rate, cpu [2][]float64
		for range o.Rounds {
			for i, s := range []*dnsSite{plain, node} {
				r, c, err := s.measure(ctx, sc.name, sc.qtype, sc.workers, o.Duration)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", sc.what, err)
				}
				rate[i], cpu[i] = append(rate[i], r), append(cpu[i], c)
			}
		}
		out = append(out, newNamesRow("answers: "+sc.what, "/s", rate), newNamesRow("server CPU: "+sc.what, "µs", cpu))
	}
	return out, nil
}

// measure returns answers per second, and microseconds of the server for each.
func (s *dnsSite) measure(ctx context.Context, name string, qtype uint16, workers int, d time.Duration) (rate, cpu float64, err error) {
	proc := load.NewProc()
	before, err := proc.CPUSeconds(s.pid)
	if err != nil {
		return 0, 0, err
	}
	r, err := s.ask(ctx, name, qtype, workers, d)
	if err != nil {
		return 0, 0, err
	}
	after, err := proc.CPUSeconds(s.pid)
	return r.PerSecond(), (after - before) / float64(r.Requests) * 1e6, err
}

func newNamesRow(what, unit string, v [2][]float64) namesRow {
	r := namesRow{Scenario: what, Unit: unit, Plain: median(v[0]), Node: median(v[1])}
	r.Ratio = r.Node / r.Plain
	return r
}

func (rs namesResults) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "SCENARIO\tUNIT\tPLAIN SERVER\tNODE\tTO PLAIN\t")
	for _, r := range rs {
		fmt.Fprintf(tw, "%s\t%s\t%.4g\t%.4g\t%.2f\t\n", r.Scenario, r.Unit, r.Plain, r.Node, r.Ratio)
	}
	return tw.Flush()
}
