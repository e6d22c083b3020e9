// SPDX-License-Identifier: Apache-2.0

// Package loader keeps the lock in the kernel: from the moment a pod link is
// locked until Uninstall, nothing but what an admitted pod may send passes it,
// whether or not the process that locked it still lives. Programs, maps and
// links are pinned from their first moment, are replaced in place and are
// never detached to be attached again; every failure leaves a pod refused.
package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
)

// Defaults of a Config's zero fields.
const (
	DefaultCaptureMark = 0x1000
	DefaultDaemonMark  = 0x2000
	DefaultMarkMask    = 0x3000
	DefaultTable       = 15008
	DefaultRulePref    = 100
	DefaultPinDir      = "/sys/fs/bpf/c8s"
	DefaultSYNRate     = 4000
	DefaultSYNBurst    = 8000

	// DefaultDatagramRate and DefaultDatagramBurst are of Config. The burst is
	// a sixteenth of the queue that all pods share.
	DefaultDatagramRate  = 32 << 20
	DefaultDatagramBurst = 2 << 20
	MaxDatagramRate      = 1 << 30
)

// Config says where the lock lives and which numbers it takes on the node.
type Config struct {
	// PinDir is a folder on a BPF file system, made if missing.
	PinDir string
	// CaptureMark is the firewall mark of pod packets on their way to the
	// daemon, DaemonMark the SO_MARK of the daemon's sockets towards pods;
	// both lie within MarkMask and differ.
	CaptureMark, DaemonMark, MarkMask uint32
	// Table is the routing table, RulePref the priority of the rule to it.
	Table, RulePref int
	// Uplinks are the links to other machines, ExcludeLinks further links
	// that no pod is behind; both are names or path.Match patterns.
	Uplinks, ExcludeLinks []string
	// KubeletCgroup is the path of the kubelet's cgroup in the cgroup2
	// hierarchy, KubeletAuto, or empty: nobody may probe pods.
	KubeletCgroup string
	// SYNRate is how many TCP connections a pod may open each second, 1 to a
	// million; SYNBurst is how many at once.
	SYNRate, SYNBurst uint32
	// DatagramRate is how many bytes of the queue for datagrams without a flow
	// a pod may fill each second, 64 KiB to 1 GiB; DatagramBurst is how many at
	// once, 1 GiB at most. A small datagram takes a KiB.
	DatagramRate, DatagramBurst uint32
	// LSM is LSMAuto (also if empty), LSMOff or LSMRequire: whether the kernel's
	// security hooks keep pods' processes from sockets that go around their links.
	LSM string
	// ForceClsact attaches below 6.6 style even where tcx is there.
	ForceClsact bool
	Log         *slog.Logger
}

// Loader is one network namespace's lock, that of the thread that called Open.
// Its methods may be called concurrently and from any namespace.
type Loader struct {
	cfg    Config
	log    *slog.Logger
	pins   pins
	ns     *netNS
	nl     *netlink.Handle
	objs   bpf.C8sObjects
	clsact bool

	lsm       bpf.LSMObjects
	lsmStatus LSMStatus

	unguarded sync.Once // the node cannot guard namespaces: said once
	onlyOnce  sync.Once // a link cannot have its second lock: said once
	settling  sync.WaitGroup
	announced atomic.Bool // new links come to LockNew; WatchLinks leaves them the time

	restored struct{ pins, programs atomic.Uint64 }

	mu      sync.Mutex               // serialises changes of links and pods, and guards what follows
	turn    *turn                    // serialises changes between processes
	held    map[string]held          // by name
	second  map[string]bool          // names of hooks that a filter locks too
	guarded map[int]Pod              // where pod_guard is, by the link's index
	macs    map[int]net.HardwareAddr // that bridges keep for a link, by its index
	queue   []string                 // links that mend looks at next
	letGo   bool                     // a successor owns the node
	closed  bool
}

func (c Config) withDefaults() (Config, error) {
	setDefault(&c.PinDir, DefaultPinDir)
	setDefault(&c.CaptureMark, DefaultCaptureMark)
	setDefault(&c.DaemonMark, DefaultDaemonMark)
	setDefault(&c.MarkMask, DefaultMarkMask)
	setDefault(&c.Table, DefaultTable)
	setDefault(&c.RulePref, DefaultRulePref)
	setDefault(&c.SYNRate, DefaultSYNRate)
	setDefault(&c.SYNBurst, DefaultSYNBurst)
	setDefault(&c.DatagramRate, DefaultDatagramRate)
	setDefault(&c.DatagramBurst, DefaultDatagramBurst)
	setDefault(&c.LSM, LSMAuto)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.CaptureMark&^c.MarkMask != 0 || c.DaemonMark&^c.MarkMask != 0 || c.CaptureMark == c.DaemonMark {
		return c, fmt.Errorf("checking the marks: capture %#x and daemon %#x must differ and lie within the mask %#x", c.CaptureMark, c.DaemonMark, c.MarkMask)
	}
	if c.Table <= 0 || (c.Table >= unix.RT_TABLE_COMPAT && c.Table <= unix.RT_TABLE_LOCAL) {
		return c, fmt.Errorf("checking the routing table: %d is reserved by the kernel", c.Table)
	}
	if c.RulePref <= 0 || c.RulePref >= 32766 {
		return c, fmt.Errorf("checking the rule priority: %d must come after the local table's 0 and before the main table's 32766", c.RulePref)
	}
	if c.SYNRate > 1e6 {
		return c, fmt.Errorf("checking the SYN budget: %d connections a second are more than a million", c.SYNRate)
	}
	if c.DatagramRate < 1<<16 || max(c.DatagramRate, c.DatagramBurst) > MaxDatagramRate {
		return c, fmt.Errorf("checking the budget of datagrams: %d bytes a second, %d at once; want 64 KiB to 1 GiB, 1 GiB at most", c.DatagramRate, c.DatagramBurst)
	}
	if c.LSM != LSMAuto && c.LSM != LSMOff && c.LSM != LSMRequire {
		return c, fmt.Errorf("checking the hardening: %q is none of %s, %s and %s", c.LSM, LSMAuto, LSMOff, LSMRequire)
	}
	return c, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Open loads the programs, or replaces the running ones in place, and guards
// the socket lookup and the uplinks of the calling thread's network namespace.
// The listener slots stay as they are: empty once the last daemon is gone.
func Open(cfg Config) (*Loader, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l := newLoader(cfg)
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("opening the lock at %s: %w", cfg.PinDir, errors.Join(err, l.Close()))
	}
	return l, nil
}

func newLoader(cfg Config) *Loader {
	return &Loader{
		cfg: cfg, log: cfg.Log, pins: pins{cfg.PinDir, layoutVersion},
		held: map[string]held{}, second: map[string]bool{}, guarded: map[int]Pod{}, macs: map[int]net.HardwareAddr{},
	}
}

func (l *Loader) open() error {
	var err error
	if l.ns, err = currentNS(); err != nil {
		return err
	}
	if l.nl, err = l.ns.netlink(); err != nil {
		return err
	}
	features := probeLock()
	if err := missing(features); err != nil {
		return err
	}
	l.clsact = l.cfg.ForceClsact || !present(features, featureTCX)
	// Only old kernels (before 5.11) count BPF memory against this limit.
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raising the memory lock limit: %w", err)
	}
	raiseFileLimit()
	if err := l.pins.make(); err != nil {
		return err
	}
	if l.turn, err = openTurn(l.pins.dir); err != nil {
		return err
	}
	if err := l.begin(context.Background()); err != nil {
		return err
	}
	defer l.end()
	if err := errors.Join(l.holdPinned(), l.load()); err != nil {
		return err
	}
	// Programs that have a listener from a predecessor need these from the
	// first packet on.
	if err := l.installBroadcasts(); err != nil {
		return err
	}
	if err := errors.Join(l.attachSteer(), l.updateNetnsGuard(), l.openLSM()); err != nil {
		return err
	}
	return l.guardUplinks()
}

// load brings programs and maps into the kernel, reusing pinned maps.
func (l *Loader) load() error {
	spec, err := bpf.LoadC8s()
	if err != nil {
		return fmt.Errorf("reading the embedded programs: %w", err)
	}
	perKiB := 1024 * uint64(time.Second) / uint64(l.cfg.DatagramRate)
	for name, value := range map[string]any{
		"mark_mask": l.cfg.MarkMask, "mark_capture": l.cfg.CaptureMark, "mark_daemon": l.cfg.DaemonMark,
		"syn_interval": uint64(time.Second) / uint64(l.cfg.SYNRate), "syn_burst": uint64(l.cfg.SYNBurst),
		"datagram_interval": perKiB, "datagram_burst": perKiB * uint64(l.cfg.DatagramBurst) / 1024,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("setting %s in the programs: %w", name, err)
		}
	}
	for name, m := range spec.Maps {
		if name[0] != '.' {
			m.Pinning = ebpf.PinByName
		}
	}
	if err := prepareMaps(spec, l.pins.maps(), l.log); err != nil {
		return err
	}
	err = spec.LoadAndAssign(&l.objs, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: l.pins.maps()}})
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		return fmt.Errorf("loading the programs: the kernel's verifier refused them: %+v", verifier)
	}
	if err != nil {
		return fmt.Errorf("loading the programs: %w", err)
	}
	return nil
}

// guardUplinks attaches node_egress to the uplinks there are now.
func (l *Loader) guardUplinks() error {
	links, err := l.listLinks()
	if err != nil {
		return err
	}
	for _, link := range links {
		if !matches(l.cfg.Uplinks, link.Attrs().Name) {
			continue
		}
		if err := l.guardUplink(link.Attrs().Index); err != nil {
			return fmt.Errorf("guarding uplink %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

func (l *Loader) listLinks() ([]netlink.Link, error) {
	for range 10 {
		links, err := l.nl.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue // links changed while they were listed
		}
		if err != nil {
			return nil, fmt.Errorf("listing the links: %w", err)
		}
		return links, nil
	}
	return nil, errors.New("listing the links: they keep changing")
}

// Close lets go of the lock without opening it: pins stay, pods stay locked.
func (l *Loader) Close() error {
	defer l.settling.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	err := errors.Join(l.closeHeld(), l.lsm.Close(), l.objs.Close(), l.turn.close())
	if l.nl != nil {
		l.nl.Close()
	}
	if l.ns != nil {
		err = errors.Join(err, l.ns.Close())
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("closing the lock: %w", err)
	}
	return nil
}

// errClosed is returned by methods of a closed Loader.
var errClosed = errors.New("the loader is closed")

// begin takes the lock for a change: no other method of this Loader, and no
// other process's on the same pins, changes anything until end. Two daemons
// share them while one takes over from the other.
func (l *Loader) begin(ctx context.Context) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return errClosed
	}
	err := ctx.Err()
	if err == nil {
		err = l.turn.take(ctx)
	}
	if err != nil {
		l.mu.Unlock()
	}
	return err
}

// end gives back what begin took.
func (l *Loader) end() {
	l.turn.give()
	l.mu.Unlock()
}
