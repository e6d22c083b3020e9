// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/test/stack/component"
	"github.com/c8s-dev/c8s/test/stack/image"
)

// ClusterConfig says what a cluster is. The zero value has two plain workers.
type ClusterConfig struct {
	// Nodes is how many workers, 2 if zero.
	Nodes int
	// Node is what each of them is; name and network are the cluster's.
	Node NodeConfig
}

// Networks of the services; those of nodes and pods are the Fabric's.
const (
	services4 = "10.96.0.0/16"
	services6 = "fd98::/108"
	podCIDRs  = "10.100.0.0/16,fd99::/48"
	apiPort   = 6443
)

// kubernetesService is the first address of services4: the API server's.
var kubernetesService = netip.AddrFrom4([4]byte{10, 96, 0, 1})

// Cluster is a Kubernetes: a machine with the control plane, on which no pods
// run, and workers.
type Cluster struct {
	Fabric       *Fabric
	ControlPlane *Node
	Nodes        []*Node

	ca     *authority
	admin  identity
	client *http.Client
}

// UpCluster brings a cluster up until its workers are ready for pods. The
// caller closes it.
func UpCluster(ctx context.Context, cfg ClusterConfig) (*Cluster, error) {
	if cfg.Nodes == 0 {
		cfg.Nodes = 2
	}
	c := &Cluster{Nodes: make([]*Node, cfg.Nodes)}
	if err := c.up(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("bringing up a cluster: %w", err), errors.New(c.Logs()), c.Close())
	}
	return c, nil
}

func (c *Cluster) up(ctx context.Context, cfg ClusterConfig) error {
	folders, err := component.Folders(ctx, component.Etcd, component.Kubernetes, component.Helm)
	if err != nil {
		return err
	}
	if c.Fabric, err = NewFabric(); err != nil {
		return err
	}
	if c.ca, err = newAuthority(time.Now()); err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	apiUp := make(chan struct{})
	all.Go(func() error {
		if err := c.upControlPlane(ctx, folders); err != nil {
			return err
		}
		close(apiUp)
		return c.startControllers(ctx)
	})
	for i := range c.Nodes {
		all.Go(func() error {
			node := cfg.Node
			node.Name, node.Fabric = fmt.Sprintf("worker%d", i+1), c.Fabric
			n, err := Up(ctx, node)
			if err != nil {
				return err
			}
			c.Nodes[i] = n
			if err := n.linkAll(folders[1], "/usr/local/bin"); err != nil {
				return err
			}
			select {
			case <-apiUp:
				return c.join(ctx, n)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	// Without it no pod can be made.
	return c.WaitFor(context.WithoutCancel(ctx), "the default service account", "/api/v1/namespaces/default/serviceaccounts/default")
}

func (c *Cluster) server() string {
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(c.ControlPlane.Addr(), apiPort))
}

// Admin is the kubeconfig of somebody who may do everything, for use on any
// machine of the fabric. It also lies on all of them, at AdminConfig.
func (c *Cluster) Admin() []byte { return c.ca.kubeconfig(c.server(), c.admin) }

// AdminConfig is where machines have the administrator's kubeconfig.
const AdminConfig = "/etc/kubernetes/admin.conf"

// Kubeconfig makes one for a user in groups: "system:nodes" and so on.
func (c *Cluster) Kubeconfig(user string, groups ...string) ([]byte, error) {
	id, err := c.ca.issue(user, groups, nil, nil)
	if err != nil {
		return nil, err
	}
	return c.ca.kubeconfig(c.server(), id), nil
}

// newClient makes the cluster's own client, the administrator.
func (c *Cluster) newClient() error {
	pair, err := tls.X509KeyPair(c.admin.cert, c.admin.key)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.cert)
	c.client = &http.Client{Transport: &http.Transport{
		DialContext:       c.ControlPlane.Dial,
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
		DisableKeepAlives: true, // the server comes and goes
	}}
	return nil
}

// Get asks the API server for a path, as the administrator.
func (c *Cluster) Get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server()+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the API server: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("asking the API server for %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking the API server for %s: %s: %.500s", path, resp.Status, body)
	}
	return body, nil
}

// WaitFor waits until the API server has something at a path.
func (c *Cluster) WaitFor(ctx context.Context, what, path string) error {
	return Poll(ctx, what, func(ctx context.Context) error {
		_, err := c.Get(ctx, path)
		return err
	})
}

// Import makes images known to every worker.
func (c *Cluster) Import(ctx context.Context, images ...*image.Image) error {
	for _, n := range c.Nodes {
		if err := n.Import(ctx, images...); err != nil {
			return err
		}
	}
	return nil
}

// machines are those that came up.
func (c *Cluster) machines() []*Node {
	return slices.DeleteFunc(append([]*Node{c.ControlPlane}, c.Nodes...), func(n *Node) bool { return n == nil })
}

// Logs are the last lines of everything on every machine.
func (c *Cluster) Logs() string {
	var all string
	for _, n := range c.machines() {
		all += n.Logs()
	}
	return all
}

// Close ends the cluster and removes all traces of it.
func (c *Cluster) Close() error {
	var all errgroup.Group
	for _, n := range c.machines() {
		all.Go(n.Close)
	}
	err := all.Wait()
	if c.Fabric != nil {
		err = errors.Join(err, c.Fabric.Close())
	}
	return err
}
