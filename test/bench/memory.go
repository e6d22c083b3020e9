// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/bench/load"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

const (
	// idlePerServer keeps below what one pod may have.
	idlePerServer = 4000
	// spareFiles of a process are for other things than connections.
	spareFiles  = 1000
	filesPerPod = 4
	// answerWait is how long a new pod may be without an answer.
	answerWait = 30 * time.Second
	// nodeDNS is any address: the node answers what goes to the port.
	nodeDNS = "10.96.0.53:53"
)

// runIdleServer echoes, at the address in the environment: the far ends have
// their own limit of open files.
func runIdleServer(ctx context.Context) error {
	ln, err := net.Listen("tcp", os.Getenv("BENCH_IDLE"))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return load.Serve(ctx, ln, load.Echo)
}

// full is a node with many pods, and servers on another node.
type full struct {
	*cluster.Cluster
	pods    []*cluster.Pod
	servers []netip.AddrPort
}

// runMemory fills a node with pods, one after the other, and then with idle
// connections.
func runMemory(ctx context.Context, o options) (part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connections, err := affordable(o)
	if err != nil {
		return nil, err
	}
	say("building two nodes")
	f, err := newFull(ctx, o.Binary, (connections+idlePerServer-1)/idlePerServer)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// What the daemon allocates once is not the pods'.
	if _, err := f.addPod(ctx); err != nil {
		return nil, err
	}
	before, err := f.rest(ctx, o.Duration)
	if err != nil {
		return nil, err
	}
	say("adding %d pods", o.Pods)
	added, err := f.addPods(ctx, o.Pods)
	if err != nil {
		return nil, err
	}
	filled, err := f.rest(ctx, o.Duration)
	if err != nil {
		return nil, err
	}
	say("opening %d connections", connections)
	idle, err := load.Idle(ctx, f.dial(), connections, o.Duration, load.NewProc(), f.daemon())
	if err != nil {
		return nil, err
	}
	rows := []gridRow{
		{Scenario: "daemon's memory with 1 pod", Unit: "MB", At: []float64{before / 1e6}},
		{Scenario: fmt.Sprintf("… with %d pods more", o.Pods), Unit: "MB", At: []float64{filled / 1e6}},
		{Scenario: fmt.Sprintf("… and %d idle connections", connections), Unit: "MB", At: []float64{float64(idle.After.PSS) / 1e6}},
		{Scenario: "a pod", Unit: "KB", At: []float64{(filled - before) / 1e3 / float64(o.Pods)}},
		{Scenario: "an idle connection", Unit: "KB", At: []float64{idle.PerConnection() / 1e3}},
		{Scenario: "from a pod's description to its first answer, p50", Unit: "ms", At: []float64{ms(added.Quantile(0.5))}},
		{Scenario: "… p99", Unit: "ms", At: []float64{ms(added.Quantile(0.99))}},
	}
	return &grid{Columns: []string{"node"}, Rows: rows}, nil
}

// affordable is how many connections fit into a process that may not open more
// files: the daemon has two for each, and some for each pod.
func affordable(o options) (int, error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	most := (int(min(files.Max, 1<<30)) - spareFiles - filesPerPod*o.Pods) / 2
	if most < 1 {
		return 0, fmt.Errorf("%d open files are too few for %d pods: raise the limit or lower --pods", files.Max, o.Pods)
	}
	if most < o.Connections {
		say("%d open files of a process allow %d connections, not %d", files.Max, most, o.Connections)
	}
	return min(most, o.Connections), nil
}

func newFull(ctx context.Context, binary string, servers int) (*full, error) {
	client, server := workload("client"), workload("server")
	allow(&client, &server, policy.ProtocolTCP, echoPort)
	c, err := startCluster(ctx, cluster.Options{
		Binary: binary, Name: "bench-memory", Nodes: bothNodes(), ManyPods: true, Workloads: []policy.Workload{client, server},
		NodeFlags: []string{"--dns-upstream", "none"},
	})
	if err != nil {
		return nil, err
	}
	f := &full{Cluster: c}
	for range servers {
		if err := f.addServer(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return f, nil
}

// addServer adds a pod on the other node that echoes.
func (f *full) addServer(ctx context.Context) error {
	p, err := openPod(ctx, f.Nodes[1], "server")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	at := netip.AddrPortFrom(p.Addr4, echoPort)
	cmd := p.Command(ctx, self, "idle-server")
	cmd.Env, cmd.Stderr = append(os.Environ(), "BENCH_IDLE="+at.String()), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("starting a server of idle connections: %w", err)
	}
	f.servers = append(f.servers, at)
	return nil
}

// daemon is the process of the full node's daemon.
func (f *full) daemon() int { return f.Nodes[0].PID() }

// rest is the daemon's memory in bytes after a while.
func (f *full) rest(ctx context.Context, d time.Duration) (float64, error) {
	if err := wait(ctx, d); err != nil {
		return 0, err
	}
	m, err := load.NewProc().Memory(f.daemon())
	return float64(m.PSS), err
}

func (f *full) addPods(ctx context.Context, n int) (load.Latencies, error) {
	var took []time.Duration
	for i := range n {
		d, err := f.addPod(ctx)
		if err != nil {
			return load.Latencies{}, fmt.Errorf("pod %d of %d: %w", i+1, n, err)
		}
		took = append(took, d)
	}
	return load.LatenciesOf(took), nil
}

// addPod adds a client and returns how long it was without an answer after the
// daemon could know of it: enrolment at the CDS is part of that.
func (f *full) addPod(ctx context.Context) (time.Duration, error) {
	spec := lab.PodSpec{Name: fmt.Sprint("client-", len(f.pods)), Images: []string{string(image("client"))}}
	p, err := f.Nodes[0].AddPod(ctx, "client", spec)
	if err != nil {
		return 0, err
	}
	described := time.Now()
	if err := introduce(p); err != nil {
		return 0, err
	}
	if err := firstAnswer(ctx, p); err != nil {
		return 0, fmt.Errorf("waiting for the first answer: %w", err)
	}
	f.pods = append(f.pods, p)
	return time.Since(described), nil
}

// introduce tells pod and node each other's link addresses for good. Neighbours
// that are looked for are few in a kernel (gc_thresh3, 1,024 for all namespaces
// together), and a pod whose first look meets the lock waits a second.
func introduce(p *cluster.Pod) error {
	node, err := p.On.Lab.Netlink().LinkByIndex(p.HostIfindex)
	if err != nil {
		return err
	}
	pod, err := p.Netlink().LinkByName(p.Interface)
	if err != nil {
		return err
	}
	neighbour := func(link netlink.Link, ip netip.Addr, at net.HardwareAddr) *netlink.Neigh {
		return &netlink.Neigh{
			LinkIndex: link.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: at,
		}
	}
	return errors.Join(
		p.Netlink().NeighSet(neighbour(pod, lab.Gateway4(), node.Attrs().HardwareAddr)),
		p.On.Lab.Netlink().NeighSet(neighbour(node, p.Addr4, p.MAC)),
	)
}

// firstAnswer asks the node for a name every millisecond until it answers,
// which it does for open pods only.
func firstAnswer(ctx context.Context, p *cluster.Pod) error {
	conn, err := p.Dial(ctx, "udp", nodeDNS)
	if err != nil {
		return err
	}
	defer conn.Close()
	query, err := new(dns.Msg).SetQuestion(clusterName, dns.TypeTXT).Pack()
	if err != nil {
		return err
	}
	buf := make([]byte, 512)
	for end := time.Now().Add(answerWait); time.Now().Before(end) && ctx.Err() == nil; {
		if _, err = conn.Write(query); err != nil {
			continue
		}
		if err = conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			return err
		}
		if _, err = conn.Read(buf); err == nil {
			return nil
		}
	}
	return errors.Join(err, ctx.Err())
}

// dial connects the pods with the servers, in turn.
func (f *full) dial() load.Dial {
	var turn atomic.Uint64
	return func(ctx context.Context) (net.Conn, error) {
		i := turn.Add(1)
		from, to := f.pods[i%uint64(len(f.pods))], f.servers[i%uint64(len(f.servers))]
		return dialFrom(from.Pod, to)(ctx)
	}
}
