// SPDX-License-Identifier: Apache-2.0

package policy

import "crypto"

// Signer is a publisher's key: images that it signed may be listed by its name
// instead of their digests.
type Signer struct {
	Name      string `json:"name"`      // as images' signers name it; printable ASCII, at most 63 characters
	Algorithm string `json:"algorithm"` // as an operator's key
	PublicKey string `json:"publicKey"`
}

// ID returns the SHA-256 of the key's SubjectPublicKeyInfo.
func (s Signer) ID() (Digest, error) { return OperatorKey(s).ID() }

// Public returns the key: an ed25519.PublicKey or an *ecdsa.PublicKey on P-256.
func (s Signer) Public() (crypto.PublicKey, error) {
	public, _, err := OperatorKey(s).decode()
	return public, err
}

// Run says what a container may be started with beyond what its image's
// configuration says. What is absent allows nothing more.
type Run struct {
	Args           []string    `json:"args,omitempty"`       // the whole argv; ["any"]: every one
	Env            []EnvRule   `json:"env,omitempty"`        // beyond or instead of the image's
	ServiceEnv     bool        `json:"serviceEnv,omitempty"` // variables that Kubernetes adds for Services
	Cwd            string      `json:"cwd,omitempty"`
	User           string      `json:"user,omitempty"`   // "uid" or "uid:gid", decimal
	Groups         []uint32    `json:"groups,omitempty"` // additional groups beyond the image's
	Mounts         []MountRule `json:"mounts,omitempty"`
	Devices        []string    `json:"devices,omitempty"`        // paths in the container
	Capabilities   []string    `json:"capabilities,omitempty"`   // beyond the runtime's default set; "NET_ADMIN"
	Privileged     bool        `json:"privileged,omitempty"`     // every capability and device, nothing masked
	HostNamespaces []string    `json:"hostNamespaces,omitempty"` // of the words below; the network is the entry's HostNetwork
	Sockets        []string    `json:"sockets,omitempty"`        // kinds that the seccomp profile refuses otherwise
	Rlimits        []string    `json:"rlimits,omitempty"`        // names that may be set; "RLIMIT_NOFILE"
	Sysctls        []string    `json:"sysctls,omitempty"`        // names that may be set; "net.core.somaxconn"
	Stdin          bool        `json:"stdin,omitempty"`          // an open stdin or a terminal: whoever reaches the kubelet can type into it
}

// EnvRule is about one environment variable: it must have the value, or may
// have any or be missing.
type EnvRule struct {
	Name  string  `json:"name"`
	Value *string `json:"value,omitempty"`
	Any   bool    `json:"any,omitempty"` // exactly one of the two
}

// MountRule allows a mount at exactly this place from this kind of source.
type MountRule struct {
	Destination string `json:"destination"`
	Source      string `json:"source"`             // one of MountKinds, or an absolute path of the node
	ReadOnly    bool   `json:"readOnly,omitempty"` // must be read-only
	Required    bool   `json:"required,omitempty"` // must be there
}

// The kinds of a mount's source.
const (
	MountEmptyDir         = "emptyDir"
	MountMemory           = "memory" // an emptyDir on tmpfs
	MountConfigMap        = "configMap"
	MountSecret           = "secret"
	MountProjected        = "projected"
	MountDownwardAPI      = "downwardAPI"
	MountCSI              = "csi"
	MountPersistentVolume = "persistentVolume"
	MountImage            = "image"
	MountTmpfs            = "tmpfs"
)

// MountKinds are the words that a MountRule's source may be.
func MountKinds() []string {
	return []string{
		MountEmptyDir, MountMemory, MountConfigMap, MountSecret, MountProjected, MountDownwardAPI,
		MountCSI, MountPersistentVolume, MountImage, MountTmpfs,
	}
}

// Namespaces of the node that a container may share. Every container is in
// the node's user namespace unless Kubernetes is told otherwise, so there is no
// word for it.
const (
	NamespaceNetwork = "network" // in facts only
	NamespacePID     = "pid"
	NamespaceIPC     = "ipc"
	NamespaceUTS     = "uts"
	NamespaceCgroup  = "cgroup"
)

// HostNamespaces are the words of Run.HostNamespaces.
func HostNamespaces() []string {
	return []string{NamespacePID, NamespaceIPC, NamespaceUTS, NamespaceCgroup}
}

// Sockets, and what else goes around a pod's link, that the node's seccomp
// profile refuses.
const (
	SocketVsock   = "vsock"
	SocketPacket  = "packet"
	SocketXDP     = "xdp"
	SocketRaw     = "raw"
	SocketBPF     = "bpf"
	SocketIOUring = "io_uring" // opens sockets that seccomp does not see
)

// SocketKinds are the words of Run.Sockets.
func SocketKinds() []string {
	return []string{SocketVsock, SocketPacket, SocketXDP, SocketRaw, SocketBPF, SocketIOUring}
}

// Exec is a process that may be added to running containers of an entry.
type Exec struct {
	Args []string `json:"args"`          // the whole argv; ["any"]: every one
	TTY  bool     `json:"tty,omitempty"` // it may have a terminal
}

// What becomes of running containers that the manifest does not admit.
const (
	UnlistedStop = "stop" // also where nothing is said
	UnlistedCut  = "cut"  // from the network
)

// Capabilities that the runtime gives to every container (containerd and
// Docker agree on them).
func defaultCapabilities() []string {
	return []string{
		"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
		"NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
	}
}

// otherCapabilities are those of capabilities(7) that no container has by
// default.
func otherCapabilities() []string {
	return []string{
		"AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH", "IPC_LOCK",
		"IPC_OWNER", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "NET_ADMIN", "NET_BROADCAST", "PERFMON",
		"SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO",
		"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
	}
}

// rlimitNames are those of setrlimit(2), as the OCI configuration spells them.
func rlimitNames() []string {
	return []string{
		"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK",
		"RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO",
		"RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
	}
}
