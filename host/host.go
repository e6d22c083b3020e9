// SPDX-License-Identifier: Apache-2.0

// Package host changes a node's own files, so that containerd and the network
// plugins ask C8s before anything starts, and takes the changes back.
//
// Its invariant: what a file was is safe on disk before the file changes.
// Uninstall therefore gives back every byte, after a crash between any two
// steps as well, and what somebody else changed in the meantime is told and
// kept, never silently overwritten.
package host

import (
	"path"

	"github.com/c8s-dev/c8s/nri/gate"
)

// Where C8s keeps its files on a node.
const (
	Dir          = "/etc/c8s"
	Operators    = Dir + "/operators.json"
	Manifest     = Dir + "/manifest.json"
	RuntimeFile  = Dir + "/runtime.json"
	RecordFile   = Dir + "/installed.json"
	backupDir    = Dir + "/backup"
	RuntimeProg  = "/opt/c8s/bin/c8s-runtime"
	aloneProg    = RuntimeProg + "-alone" // c8s-runtime looks for it beside itself
	cniProgName  = "c8s-cni"
	dropInImport = "conf.d/*.toml"
	// The drop-in is read last of all in its folder: vendors put runtimes of
	// their own into files named 99-….toml, and the last word must be ours.
	dropInName = "conf.d/zz-c8s.toml"
)

// The daemon's folders, unless it is told others.
const (
	RunDir   = "/run/c8s"     // sockets
	StateDir = "/var/lib/c8s" // what must never be older after a restart
)

// PluginName is the name under which the daemon registers with NRI.
const PluginName = "c8s"

// TolerateAnnotation lets a pod start while the NRI plugin is absent: the node
// daemon's own pod carries it. It opens nothing, since c8s-runtime judges every
// container whatever NRI's validator says.
const TolerateAnnotation = "c8s.dev/tolerate-missing-plugin"

// Layout says where things are. Paths are those of the node; Root is where this
// process sees the node's root: "/", or "/host" in a pod.
type Layout struct {
	Root             string
	ContainerdConfig string
	CNIConf          string // folder; empty: what containerd's configuration says
	CNIBin           string // folder; empty: what containerd's configuration says
	RunDir           string // of the daemon
	StateDir         string // of the daemon
	Containerd       string // socket
	Kubelet          string // its folder; empty: the usual one
	Runc             string // the real runtime; empty: what containerd's configuration says
}

// DefaultLayout is that of a node as containerd's and Kubernetes' own packages
// make it.
func DefaultLayout() Layout {
	return Layout{
		Root: "/", ContainerdConfig: "/etc/containerd/config.toml", RunDir: RunDir, StateDir: StateDir,
		Containerd: "/run/containerd/containerd.sock",
	}
}

// DropIn is the file that puts C8s into containerd's configuration.
func (l Layout) DropIn() string { return path.Join(path.Dir(l.ContainerdConfig), dropInName) }

// importPattern is what the main configuration has to import.
func (l Layout) importPattern() string { return path.Join(path.Dir(l.ContainerdConfig), dropInImport) }

// Gate is the daemon's socket.
func (l Layout) Gate() string { return path.Join(l.RunDir, gate.SocketName) }
