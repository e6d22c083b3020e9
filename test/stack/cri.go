// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CRI is the interface that a kubelet uses, as a client.
type CRI struct {
	Runtime cri.RuntimeServiceClient
	Images  cri.ImageServiceClient

	node *Node
	conn *grpc.ClientConn
}

// CRI returns the node's client. It stays good while containerd restarts.
func (n *Node) CRI() (*CRI, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cri != nil {
		return n.cri, nil
	}
	conn, err := grpc.NewClient("unix://"+n.Path(ContainerdSocket),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Connecting again must not wait as long as it would over a network.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("dialling containerd of %s: %w", n.cfg.Name, err)
	}
	n.cri = &CRI{
		Runtime: cri.NewRuntimeServiceClient(conn), Images: cri.NewImageServiceClient(conn),
		node: n, conn: conn,
	}
	return n.cri, nil
}

func (c *CRI) close() error { return c.conn.Close() }

// ready fails until pods can be run.
func (c *CRI) ready(ctx context.Context) error {
	status, err := c.Runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, cond := range status.GetStatus().GetConditions() { // others are warnings
		needed := cond.Type == cri.RuntimeReady || cond.Type == cri.NetworkReady && c.node.cfg.CNI != CNINone
		if needed && !cond.Status {
			return errors.New(cond.Type + ": " + cond.Message)
		}
	}
	return nil
}

// ListImages returns what containerd has.
func (c *CRI) ListImages(ctx context.Context) ([]*cri.Image, error) {
	list, err := c.Images.ListImages(ctx, &cri.ListImagesRequest{})
	return list.GetImages(), err
}

// ListPods returns the pods, also those that ended.
func (c *CRI) ListPods(ctx context.Context) ([]*cri.PodSandbox, error) {
	list, err := c.Runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	return list.GetItems(), err
}

// ListContainers returns the containers, also those that ended.
func (c *CRI) ListContainers(ctx context.Context) ([]*cri.Container, error) {
	list, err := c.Runtime.ListContainers(ctx, &cri.ListContainersRequest{})
	return list.GetContainers(), err
}
