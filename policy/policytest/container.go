// SPDX-License-Identifier: Apache-2.0

package policytest

import (
	"github.com/c8s-dev/c8s/policy"
)

// Container returns final facts of a container of the image Digest(name) that
// was started as the image says and as kubelet and containerd start everything.
func Container(name string) policy.ContainerFacts {
	config := policy.ImageConfig{
		Entrypoint: []string{"/bin/" + name}, Cmd: []string{"--serve", "80"}, Env: []string{"PATH=/bin", "MODE=strict"},
		Cwd: "/srv", User: "1000:1000", Volumes: []string{"/var/cache"},
	}
	runtime := func(destination string) policy.MountFacts {
		return policy.MountFacts{Destination: destination, Source: policy.MountRuntime, Propagation: "rprivate"}
	}
	sys := runtime("/sys")
	sys.ReadOnly = true
	return policy.ContainerFacts{
		Name: name, Image: policy.ImageFacts{Digest: Digest(name), Config: &config},
		Args: []string{"/bin/" + name, "--serve", "80"}, Cwd: "/srv", User: policy.UserFacts{UID: 1000, GID: 1000, Groups: []uint32{1000}},
		Env: []string{
			"HOSTNAME=" + name + "-0", "PATH=/bin", "MODE=strict", "KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443",
			"KUBERNETES_SERVICE_PORT_HTTPS=443", "KUBERNETES_PORT=tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
			"KUBERNETES_PORT_443_TCP_PROTO=tcp", "KUBERNETES_PORT_443_TCP_PORT=443", "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
		},
		Mounts: []policy.MountFacts{
			runtime("/proc"), runtime("/dev"), runtime("/dev/shm"), sys, runtime("/etc/hosts"), runtime("/etc/resolv.conf"), runtime("/dev/termination-log"),
			{Destination: "/var/run/secrets/kubernetes.io/serviceaccount", Source: policy.MountServiceAccount, ReadOnly: true},
			{Destination: "/var/cache", Source: policy.MountImageVolume},
		},
		Seccomp: &policy.SeccompFacts{},
		Privileges: &policy.PrivilegeFacts{
			Capabilities:  []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SETUID"},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}
