// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Where the control plane has its keys.
const pkiDir = "/etc/kubernetes/pki/"

const etcdAddress = "127.0.0.1:2379"

// controllers are those of the controller manager that tests need. All of
// them together take twice as long until the first pod can be made.
var controllers = []string{
	"serviceaccount-controller", "root-ca-certificate-publisher-controller", "clusterrole-aggregation-controller",
	"namespace-controller", "garbage-collector-controller", "pod-garbage-collector-controller",
	"deployment-controller", "replicaset-controller", "daemonset-controller", "statefulset-controller", "job-controller",
	"endpointslice-controller", "node-lifecycle-controller", "taint-eviction-controller",
}

// upControlPlane makes its machine and starts etcd and the API server there.
func (c *Cluster) upControlPlane(ctx context.Context, folders []string) error {
	n, err := Up(ctx, NodeConfig{Name: "control-plane", Fabric: c.Fabric, NoContainerd: true})
	if err != nil {
		return err
	}
	c.ControlPlane = n
	for _, folder := range folders {
		if err := n.linkAll(folder, "/usr/local/bin"); err != nil {
			return err
		}
	}
	if err := c.writePKI(n); err != nil {
		return fmt.Errorf("making the control plane's keys: %w", err)
	}
	if err := c.newClient(); err != nil {
		return err
	}
	_, err = n.Start(ctx, Daemon{
		Name: "etcd",
		// On a tmpfs: nothing of it has to last.
		Args: []string{
			"etcd", "--data-dir=/run/etcd", "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=http://" + etcdAddress, "--advertise-client-urls=http://" + etcdAddress,
			"--listen-peer-urls=http://127.0.0.1:2380",
		},
		Ready: func(ctx context.Context) error {
			conn, err := n.Dial(ctx, "tcp", etcdAddress)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	if err != nil {
		return err
	}
	return c.StartAPI(ctx)
}

func (c *Cluster) writePKI(n *Node) error {
	api, err1 := c.ca.issue("kube-apiserver", nil,
		[]string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		[]netip.Addr{n.Addr(), n.Addr6(), kubernetesService, netip.AddrFrom4([4]byte{127, 0, 0, 1})})
	toKubelets, err2 := c.ca.issue("kube-apiserver-kubelet-client", []string{"system:masters"}, nil, nil)
	admin, err3 := c.ca.issue("admin", []string{"system:masters"}, nil, nil)
	c.admin = admin
	accounts, err4 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(accounts.Public())
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		pkiDir + "ca.crt":          c.ca.pem,
		pkiDir + "apiserver.crt":   api.cert,
		pkiDir + "apiserver.key":   api.key,
		pkiDir + "to-kubelets.crt": toKubelets.cert,
		pkiDir + "to-kubelets.key": toKubelets.key,
		pkiDir + "accounts.key":    keyPEM(accounts),
		pkiDir + "accounts.pub":    pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		AdminConfig:                c.Admin(),
	} {
		if err := n.WriteFile(name, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// StartAPI starts the API server and waits until it is ready.
func (c *Cluster) StartAPI(ctx context.Context) error {
	n := c.ControlPlane
	_, err := n.Start(ctx, Daemon{
		Name: "kube-apiserver",
		Args: []string{
			"kube-apiserver",
			"--etcd-servers=http://" + etcdAddress,
			"--advertise-address=" + n.Addr().String(),
			fmt.Sprintf("--secure-port=%d", apiPort),
			"--service-cluster-ip-range=" + services4 + "," + services6,
			"--allow-privileged=true",
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--client-ca-file=" + pkiDir + "ca.crt",
			"--tls-cert-file=" + pkiDir + "apiserver.crt",
			"--tls-private-key-file=" + pkiDir + "apiserver.key",
			"--kubelet-client-certificate=" + pkiDir + "to-kubelets.crt",
			"--kubelet-client-key=" + pkiDir + "to-kubelets.key",
			"--kubelet-certificate-authority=" + pkiDir + "ca.crt",
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + pkiDir + "accounts.pub",
			"--service-account-signing-key-file=" + pkiDir + "accounts.key",
		},
		Ready: func(ctx context.Context) error {
			_, err := c.Get(ctx, "/readyz")
			return err
		},
	})
	return err
}

// StopAPI takes the API server away at once. Everything else goes on.
func (c *Cluster) StopAPI() error { return c.ControlPlane.Process("kube-apiserver").Kill() }

// startControllers starts the controller manager and the scheduler, who are
// both administrators: roles of their own would only come with more time.
func (c *Cluster) startControllers(ctx context.Context) error {
	var both errgroup.Group
	for name, args := range map[string][]string{
		"kube-controller-manager": {
			"--root-ca-file=" + pkiDir + "ca.crt",
			"--service-account-private-key-file=" + pkiDir + "accounts.key",
			"--controllers=" + strings.Join(controllers, ","),
		},
		"kube-scheduler": {},
	} {
		both.Go(func() error {
			common := []string{
				name, "--kubeconfig=" + AdminConfig, "--authentication-kubeconfig=" + AdminConfig,
				"--authorization-kubeconfig=" + AdminConfig, "--leader-elect=false",
			}
			_, err := c.ControlPlane.Start(ctx, Daemon{Name: name, Args: append(common, args...)})
			return err
		})
	}
	return both.Wait()
}

// join starts kubelet and kube-proxy on a worker and waits until it is ready.
func (c *Cluster) join(ctx context.Context, n *Node) error {
	user := "system:node:" + n.Name()
	serving, err1 := c.ca.issue(user, []string{"system:nodes"}, []string{n.Name()}, []netip.Addr{n.Addr(), n.Addr6()})
	proxy, err2 := c.Kubeconfig("system:kube-proxy")
	err := errors.Join(err1, err2)
	for name, data := range map[string][]byte{
		pkiDir + "ca.crt":              c.ca.pem,
		pkiDir + "kubelet.crt":         serving.cert,
		pkiDir + "kubelet.key":         serving.key,
		"/etc/kubernetes/kubelet.conf": c.ca.kubeconfig(c.server(), serving),
		"/etc/kubernetes/proxy.conf":   proxy,
		"/etc/kubernetes/proxy.yaml":   proxyConfig(n),
		"/var/lib/kubelet/config.yaml": kubeletConfig(n),
		AdminConfig:                    c.Admin(),
	} {
		err = errors.Join(err, n.WriteFile(name, data, 0o600))
	}
	if err != nil {
		return fmt.Errorf("configuring worker %s: %w", n.Name(), err)
	}
	_, err = n.Start(ctx, Daemon{
		Name: "kube-proxy",
		Args: []string{"kube-proxy", "--config=/etc/kubernetes/proxy.yaml"},
	})
	if err != nil {
		return err
	}
	return c.StartKubelet(ctx, n)
}

// StartKubelet starts a worker's kubelet, which must not run, and waits until
// the API server knows the worker as ready.
func (c *Cluster) StartKubelet(ctx context.Context, n *Node) error {
	nodeIPs := []string{n.Addr().String()}
	if !n.cfg.IPv4Only {
		nodeIPs = append(nodeIPs, n.Addr6().String())
	}
	_, err := n.Start(ctx, Daemon{
		Name: "kubelet",
		Args: []string{
			"kubelet", "--config=/var/lib/kubelet/config.yaml", "--kubeconfig=/etc/kubernetes/kubelet.conf",
			"--hostname-override=" + n.Name(), "--node-ip=" + strings.Join(nodeIPs, ","), "--v=2",
		},
		Ready: func(ctx context.Context) error { return c.nodeReady(ctx, n.Name()) },
	})
	return err
}

// proxyConfig is kube-proxy's. It may not write the machine's conntrack
// settings, hence the zeros.
func proxyConfig(n *Node) []byte {
	return fmt.Appendf(nil, `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: %s
hostnameOverride: %s
clientConnection: {kubeconfig: /etc/kubernetes/proxy.conf}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, podCIDRs, n.Name())
}

// kubeletConfig is a worker's: it never gives up a pod or an image for want
// of space, and works where cgroups are mixed and OOM scores cannot be lowered.
func kubeletConfig(n *Node) []byte {
	return fmt.Appendf(nil, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %q
containerRuntimeEndpoint: unix://%s
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[3]sca.crt}}
authorization: {mode: Webhook}
tlsCertFile: %[3]skubelet.crt
tlsPrivateKeyFile: %[3]skubelet.key
healthzBindAddress: 127.0.0.1
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
evictionHard: {memory.available: 100Mi, nodefs.available: "1%%", imagefs.available: "1%%", nodefs.inodesFree: "1%%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 4s
syncFrequency: 10s
`, net.IPv4zero, ContainerdSocket, pkiDir)
}
