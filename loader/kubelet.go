// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/bpf"
)

// KubeletAuto as Config.KubeletCgroup has the kubelet found by its executable.
const KubeletAuto = "auto"

// kubeletInterval is how long a restarted kubelet's probes may be refused: its
// service manager makes it a new cgroup.
const kubeletInterval = time.Second

// errNoKubelet is no failure on a node without one.
var errNoKubelet = errors.New("no process of this network namespace runs an executable named kubelet")

// kubelet follows the kubelet's cgroup.
type kubelet struct {
	*Loader
	tree    cgroups // zero: to be found
	proc    string  // of the process found last, below /proc
	id      uint64
	problem string
}

// WatchKubelet keeps the kernel told which cgroup is the kubelet's, until ctx
// ends: only from there may a pod's probe ports be reached. While it is not
// known, or cannot be told from others, probes are refused.
func (l *Loader) WatchKubelet(ctx context.Context) error {
	tick := time.NewTicker(kubeletInterval)
	defer tick.Stop()
	k := &kubelet{Loader: l}
	for {
		if err := k.follow(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("watching the kubelet: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// follow looks once and puts right what the kernel was told, also by another
// daemon that shares the pins.
func (k *kubelet) follow(ctx context.Context) error {
	id, err := k.find()
	problem := ""
	if err != nil {
		id, problem = 0, err.Error()
	}
	var told bpf.Node
	if err := k.objs.Node.Lookup(uint32(0), &told); err != nil {
		return fmt.Errorf("reading its cgroup: %w", err)
	}
	if told.Kubelet != id {
		if err := k.begin(ctx); err != nil {
			return err
		}
		err := k.objs.Node.Put(uint32(0), bpf.Node{Kubelet: id})
		k.end()
		if err != nil {
			return fmt.Errorf("writing its cgroup: %w", err)
		}
	}
	if id != k.id || problem != k.problem {
		k.id, k.problem = id, problem
		k.say(err)
	}
	return nil
}

func (k *kubelet) say(err error) {
	switch {
	case errors.Is(err, errNoKubelet):
		k.log.Info("no kubelet: nobody may probe pods", "err", err)
	case err != nil:
		k.log.Error("the kubelet's probes are refused: its cgroup is not known", "err", err)
	default:
		k.log.Info("the kubelet may probe pods", "cgroup", k.id, "process", k.proc)
	}
}

func (k *kubelet) find() (uint64, error) {
	if k.cfg.KubeletCgroup == "" {
		return 0, nil
	}
	var err error
	cgroup := k.cfg.KubeletCgroup
	if cgroup == KubeletAuto {
		if cgroup, err = k.cgroup(); err != nil {
			return 0, err
		}
	}
	if k.tree.dir == "" {
		if k.tree, err = findCgroups(); err != nil {
			return 0, err
		}
	}
	id, dir, err := k.tree.lookup(cgroup)
	if err != nil {
		k.tree = cgroups{} // it may be mounted elsewhere by now
		return 0, fmt.Errorf("looking up the kubelet's cgroup %s: %w (give the kubelet one of its own, as systemd does)", cgroup, err)
	}
	own, err := k.tree.holds(dir, "/proc/self")
	if err != nil {
		return 0, err
	}
	if own {
		return 0, fmt.Errorf("the kubelet's cgroup %s also holds this daemon; give the kubelet one of its own, as systemd does", cgroup)
	}
	return id, nil
}

// cgroup is that of the kubelet's process. The one found last is asked first,
// so that another of the same name changes nothing while it lives.
func (k *kubelet) cgroup() (string, error) {
	if k.proc != "" && k.isKubelet(k.proc) {
		if found, err := kubeletCgroup(k.proc); err == nil {
			return found, nil
		}
	}
	k.proc = ""
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "", fmt.Errorf("listing the processes: %w", err)
	}
	cgroup, proc := "", ""
	for _, p := range processes {
		if !k.isKubelet(p) {
			continue
		}
		found, err := kubeletCgroup(p)
		if err != nil {
			continue // it has ended, or is a pod's
		}
		if proc != "" && found != cgroup {
			return "", fmt.Errorf("%s and %s both run a kubelet, in the cgroups %s and %s; say which with --kubelet-cgroup", proc, p, cgroup, found)
		}
		cgroup, proc = found, p
	}
	if proc == "" {
		return "", errNoKubelet
	}
	k.proc = proc
	return cgroup, nil
}

// isKubelet tells whether a process runs an executable named kubelet on the
// node's network. A process may call itself anything; its executable is the
// kernel's word.
func (k *kubelet) isKubelet(proc string) bool {
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != "kubelet" {
		return false
	}
	ns, err := openNS(filepath.Join(proc, "ns/net"))
	if err != nil {
		return false
	}
	defer ns.Close()
	return ns.inode == k.ns.inode
}

// kubeletCgroup refuses processes of pods: a host-network pod can bring an
// executable of any name.
func kubeletCgroup(proc string) (string, error) {
	cgroup, err := cgroupOf(proc)
	if err != nil {
		return "", err
	}
	for part := range strings.SplitSeq(cgroup, "/") {
		if strings.HasPrefix(part, "kubepods") {
			return "", fmt.Errorf("the cgroup %s is a pod's", cgroup)
		}
	}
	return cgroup, nil
}
