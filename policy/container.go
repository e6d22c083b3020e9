// SPDX-License-Identifier: Apache-2.0

package policy

// ContainerFacts say what a runtime is about to start. What a field does not
// name is not there, so whoever gathers the facts must leave out nothing.
type ContainerFacts struct {
	Name  string
	Image ImageFacts

	// Early: gathered before the configuration is final, where Cwd, Privileges,
	// Seccomp and Image.Account may be unknown. They are then judged later, by
	// final facts, before anything starts. Without it the unknown refuses.
	Early bool

	Args     []string
	Env      []string // NAME=value
	Cwd      string
	User     UserFacts
	Terminal bool
	Stdin    bool // open, without a terminal too

	Mounts         []MountFacts
	Devices        []string // paths in the container, but for those that every container has (/dev/null and the like)
	Hooks          int      // OCI hooks of every kind
	Rlimits        []string // "RLIMIT_NOFILE"
	Sysctls        []string // those of the pod's sandbox too
	HostNamespaces []string // namespaces of the node that it shares; NamespaceNetwork too; NamespaceCgroup only where containers otherwise get one of their own
	Other          []string // whatever else the configuration asks for and no rule is about, by its OCI path; each refuses

	Seccomp    *SeccompFacts   // nil: not known
	Privileges *PrivilegeFacts // nil: not known
}

// ImageFacts say what a container's root is made of.
type ImageFacts struct {
	Digest       Digest       // of the image's configuration
	Config       *ImageConfig // nil: not known, which refuses
	Account      *UserFacts   // what the image's own passwd and group files make of Config.User; nil: not known
	Signatures   []SignatureFacts
	Repositories []string // "registry.example/team/app": where the runtime has it from; proves nothing
}

// ImageConfig is what an image's configuration says about its processes.
type ImageConfig struct {
	Entrypoint, Cmd, Env []string
	Cwd, User            string
	Volumes              []string // destinations of anonymous volumes
}

// SignatureFacts is a verified signature of an image's manifest.
type SignatureFacts struct {
	Signer         Digest // Signer.ID of the key
	Repository     string // that the signature names
	ManifestDigest Digest // whose configuration the image is
}

// SignedImage is an image that is listed by its signer.
type SignedImage struct {
	Digest Digest // of the configuration
	Signer Digest // Signer.ID of the key that the node verified
}

// UserFacts are a process's credentials.
type UserFacts struct {
	UID, GID uint32
	Groups   []uint32 // additional ones
}

// MountFacts is one mount of a container.
type MountFacts struct {
	Destination string
	Source      string // one of MountKinds or of the words below; an unknown kind refuses
	HostPath    string // the node's path of a MountHostPath
	ReadOnly    bool
	Propagation string // "private", "rprivate" or "" for none; "rslave", "rshared", …
}

// Kinds of mounts that no rule names.
const (
	// MountRuntime is what runtime and kubelet make for every container: /proc,
	// /dev, /sys, /etc/hosts, the termination log and the like.
	MountRuntime = "runtime"
	// MountServiceAccount is the pod's token.
	MountServiceAccount = "serviceAccount"
	// MountImageVolume is an anonymous volume, empty at first.
	MountImageVolume = "imageVolume"
	// MountHostPath is a path of the node; rules name the path itself.
	MountHostPath = "hostPath"
)

// SeccompFacts say what a container's filter leaves open.
type SeccompFacts struct {
	Open       []string // of SocketKinds
	Unconfined bool     // no filter: everything is open
}

// PrivilegeFacts are the parts of an OCI configuration that only its last
// reader knows.
type PrivilegeFacts struct {
	Capabilities  []string // of all sets together, as the kernel spells them: "CAP_NET_RAW"
	Ambient       []string // those that programs keep without being root
	MaskedPaths   []string
	ReadonlyPaths []string
	AllDevices    bool // the cgroup allows devices that are neither in Devices nor in every container
}

// ExecFacts say which process is about to be added to a running container.
type ExecFacts struct {
	Args     []string
	Terminal bool
	Differs  []string // what else is not as in the container's own process: "env", "user", "capabilities"
}
