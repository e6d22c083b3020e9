// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/c8s-dev/c8s/policy"
)

// kubePodSpec is what derive needs of a pod: whatever decides how its
// containers are started.
type kubePodSpec struct {
	HostNetwork         bool            `yaml:"hostNetwork"`
	HostPID             bool            `yaml:"hostPID"`
	HostIPC             bool            `yaml:"hostIPC"`
	EnableServiceLinks  *bool           `yaml:"enableServiceLinks"`
	InitContainers      []kubeContainer `yaml:"initContainers"`
	Containers          []kubeContainer `yaml:"containers"`
	EphemeralContainers []kubeContainer `yaml:"ephemeralContainers"`
	Volumes             []kubeVolume    `yaml:"volumes"`
	SecurityContext     struct {
		RunAsUser          *uint32  `yaml:"runAsUser"`
		RunAsGroup         *uint32  `yaml:"runAsGroup"`
		FSGroup            *uint32  `yaml:"fsGroup"`
		SupplementalGroups []uint32 `yaml:"supplementalGroups"`
		Sysctls            []struct {
			Name string `yaml:"name"`
		} `yaml:"sysctls"`
	} `yaml:"securityContext"`

	claims []string // names of a StatefulSet's volumeClaimTemplates
}

type kubeContainer struct {
	Name       string      `yaml:"name"`
	Image      string      `yaml:"image"`
	Command    []string    `yaml:"command"`
	Args       []string    `yaml:"args"`
	WorkingDir string      `yaml:"workingDir"`
	Env        []kubeEnv   `yaml:"env"`
	EnvFrom    []yaml.Node `yaml:"envFrom"`
	Stdin      bool        `yaml:"stdin"`
	TTY        bool        `yaml:"tty"`
	Ports      []struct {
		Name          string `yaml:"name"`
		ContainerPort uint16 `yaml:"containerPort"`
		HostPort      uint16 `yaml:"hostPort"`
		Protocol      string `yaml:"protocol"`
	} `yaml:"ports"`
	SecurityContext struct {
		Privileged   bool    `yaml:"privileged"`
		RunAsUser    *uint32 `yaml:"runAsUser"`
		RunAsGroup   *uint32 `yaml:"runAsGroup"`
		ProcMount    string  `yaml:"procMount"`
		Capabilities struct {
			Add []string `yaml:"add"`
		} `yaml:"capabilities"`
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name             string `yaml:"name"`
		MountPath        string `yaml:"mountPath"`
		SubPath          string `yaml:"subPath"`
		SubPathExpr      string `yaml:"subPathExpr"`
		ReadOnly         bool   `yaml:"readOnly"`
		MountPropagation string `yaml:"mountPropagation"`
	} `yaml:"volumeMounts"`
	VolumeDevices []struct {
		DevicePath string `yaml:"devicePath"`
	} `yaml:"volumeDevices"`
	Resources struct {
		Limits map[string]yaml.Node `yaml:"limits"`
	} `yaml:"resources"`
	TerminationMessagePath string      `yaml:"terminationMessagePath"`
	LivenessProbe          kubeHandler `yaml:"livenessProbe"`
	ReadinessProbe         kubeHandler `yaml:"readinessProbe"`
	StartupProbe           kubeHandler `yaml:"startupProbe"`
	Lifecycle              struct {
		PostStart kubeHandler `yaml:"postStart"`
		PreStop   kubeHandler `yaml:"preStop"`
	} `yaml:"lifecycle"`
}

type kubeEnv struct {
	Name      string    `yaml:"name"`
	Value     string    `yaml:"value"`
	ValueFrom yaml.Node `yaml:"valueFrom"`
}

// kubeHandler is what the kubelet does to a container: it connects, or adds a
// process.
type kubeHandler struct {
	HTTPGet struct {
		Host string    `yaml:"host"`
		Port yaml.Node `yaml:"port"`
	} `yaml:"httpGet"`
	TCPSocket struct {
		Host string    `yaml:"host"`
		Port yaml.Node `yaml:"port"`
	} `yaml:"tcpSocket"`
	GRPC struct {
		Port yaml.Node `yaml:"port"`
	} `yaml:"grpc"`
	Exec struct {
		Command []string `yaml:"command"`
	} `yaml:"exec"`
}

// ports returns the ports that the handler connects to, by number or name.
func (h *kubeHandler) ports() []string {
	var ports []string
	for _, n := range []*yaml.Node{&h.HTTPGet.Port, &h.TCPSocket.Port, &h.GRPC.Port} {
		if !n.IsZero() {
			ports = append(ports, n.Value)
		}
	}
	return ports
}

// port finds a port by number or name.
func (c *kubeContainer) port(text string) (uint16, error) {
	if v, err := strconv.ParseUint(text, 10, 16); err == nil && v > 0 {
		return uint16(v), nil
	}
	for _, p := range c.Ports {
		if p.Name != "" && p.Name == text {
			return p.ContainerPort, nil
		}
	}
	return 0, fmt.Errorf("there is no port %.40q", text)
}

type kubeVolume struct {
	Name     string `yaml:"name"`
	EmptyDir *struct {
		Medium string `yaml:"medium"`
	} `yaml:"emptyDir"`
	HostPath *struct {
		Path string `yaml:"path"`
	} `yaml:"hostPath"`
	ConfigMap   yaml.Node `yaml:"configMap"`
	Secret      yaml.Node `yaml:"secret"`
	Projected   yaml.Node `yaml:"projected"`
	DownwardAPI yaml.Node `yaml:"downwardAPI"`
	CSI         yaml.Node `yaml:"csi"`
	Claim       yaml.Node `yaml:"persistentVolumeClaim"`
	Ephemeral   yaml.Node `yaml:"ephemeral"`
	Image       yaml.Node `yaml:"image"`
}

// source returns the word of a mount rule and whether the kubelet mounts such
// a volume read-only whatever the pod says.
func (v *kubeVolume) source() (kind string, readOnly bool) {
	switch {
	case v.EmptyDir != nil && v.EmptyDir.Medium == "Memory":
		return policy.MountMemory, false
	case v.EmptyDir != nil:
		return policy.MountEmptyDir, false
	case v.HostPath != nil:
		return v.HostPath.Path, false
	}
	for _, s := range []struct {
		n        *yaml.Node
		kind     string
		readOnly bool
	}{
		{&v.ConfigMap, policy.MountConfigMap, true},
		{&v.Secret, policy.MountSecret, true},
		{&v.Projected, policy.MountProjected, true},
		{&v.DownwardAPI, policy.MountDownwardAPI, true},
		{&v.CSI, policy.MountCSI, false},
		{&v.Claim, policy.MountPersistentVolume, false},
		{&v.Ephemeral, policy.MountPersistentVolume, false},
		{&v.Image, policy.MountImage, true},
	} {
		if !s.n.IsZero() {
			return s.kind, s.readOnly
		}
	}
	return "", false
}

// volume finds a volume of the pod; a StatefulSet's claims are volumes too.
func (p *kubePodSpec) volume(name string) (kubeVolume, bool) {
	if slices.Contains(p.claims, name) {
		return kubeVolume{Name: name, Claim: yaml.Node{Kind: yaml.MappingNode}}, true
	}
	i := slices.IndexFunc(p.Volumes, func(v kubeVolume) bool { return v.Name == name })
	if i < 0 {
		return kubeVolume{}, false
	}
	return p.Volumes[i], true
}

type placedContainer struct {
	kubeContainer
	at string // containers[web]
}

// all returns every container that a pod can have: each needs a listed image.
func (p *kubePodSpec) all() []placedContainer {
	var all []placedContainer
	for _, list := range []struct {
		name       string
		containers []kubeContainer
	}{{"initContainers", p.InitContainers}, {"containers", p.Containers}, {"ephemeralContainers", p.EphemeralContainers}} {
		for _, c := range list.containers {
			all = append(all, placedContainer{c, fmt.Sprintf("%s[%s]", list.name, c.Name)})
		}
	}
	return all
}
