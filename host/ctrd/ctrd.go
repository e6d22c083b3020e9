// SPDX-License-Identifier: Apache-2.0

// Package ctrd asks a running containerd what it does, and has it try what it
// must not do. Its invariant: only what containerd itself reports or refuses
// counts, not what its files say; and whatever is made for a try is removed.
package ctrd

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/services/leases/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Client talks to one containerd.
type Client struct {
	conn    *grpc.ClientConn
	runtime cri.RuntimeServiceClient
	image   cri.ImageServiceClient
	content content.ContentClient
	images  images.ImagesClient
	leases  leases.LeasesClient
}

// Dial prepares a client for a socket; it connects when it is used.
func Dial(socket string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("reaching containerd at %s: %w", socket, err)
	}
	return &Client{
		conn, cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn),
		content.NewContentClient(conn), images.NewImagesClient(conn), leases.NewLeasesClient(conn),
	}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// NobodyListens says whether an error means that no containerd runs.
func NobodyListens(err error) bool { return status.Code(err) == codes.Unavailable }

// Version is containerd's.
type Version struct {
	Text         string
	Major, Minor int
}

// AtLeast compares.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// Version asks for the runtime's name and version.
func (c *Client) Version(ctx context.Context) (Version, error) {
	v, err := c.runtime.Version(ctx, &cri.VersionRequest{})
	if err != nil {
		return Version{}, fmt.Errorf("asking containerd for its version: %w", err)
	}
	if v.RuntimeName != "containerd" {
		return Version{}, fmt.Errorf("asking containerd for its version: the runtime is %q", v.RuntimeName)
	}
	return parseVersion(v.RuntimeVersion)
}

func parseVersion(text string) (Version, error) {
	parts := strings.SplitN(strings.TrimPrefix(text, "v"), ".", 3)
	if len(parts) == 3 {
		major, errA := strconv.Atoi(parts[0])
		minor, errB := strconv.Atoi(parts[1])
		if errA == nil && errB == nil {
			return Version{text, major, minor}, nil
		}
	}
	return Version{}, fmt.Errorf("containerd's version %q is not understood", text)
}

// InForce is the configuration that containerd runs with, which its files may
// have left behind since it started.
type InForce struct {
	Runtimes map[string]string // by handler: the program that starts its containers
	Network  []string          // types of the plugins of the pods' network, in order
}

// verbose are the parts of containerd's verbose status that are read.
type (
	verboseConfig struct {
		Containerd struct {
			Runtimes map[string]struct {
				Options struct {
					BinaryName string `json:"BinaryName"`
				} `json:"options"`
			} `json:"runtimes"`
		} `json:"containerd"`
	}
	verboseNetwork struct {
		Networks []struct {
			Config struct {
				Name    string `json:"Name"`
				Plugins []struct {
					Network struct {
						Type string `json:"type"`
					} `json:"Network"`
				} `json:"Plugins"`
			} `json:"Config"`
		} `json:"Networks"`
	}
)

// InForce asks for the configuration.
func (c *Client) InForce(ctx context.Context) (*InForce, error) {
	s, err := c.runtime.Status(ctx, &cri.StatusRequest{Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("asking containerd for its configuration: %w", err)
	}
	return parseInForce(s.Info)
}

func parseInForce(info map[string]string) (*InForce, error) {
	var conf verboseConfig
	if err := json.Unmarshal([]byte(info["config"]), &conf); err != nil {
		return nil, fmt.Errorf("reading containerd's configuration: %w", err)
	}
	out := &InForce{Runtimes: map[string]string{}}
	for name, r := range conf.Containerd.Runtimes {
		out.Runtimes[name] = r.Options.BinaryName
	}
	if len(out.Runtimes) == 0 {
		return nil, fmt.Errorf("reading containerd's configuration: it names no runtime")
	}
	var network verboseNetwork
	if text := info["cniconfig"]; text != "" {
		if err := json.Unmarshal([]byte(text), &network); err != nil {
			return nil, fmt.Errorf("reading containerd's network configuration: %w", err)
		}
	}
	for _, n := range network.Networks {
		if n.Config.Name == "cni-loopback" { // containerd's own, for every pod
			continue
		}
		for _, p := range n.Config.Plugins {
			out.Network = append(out.Network, p.Network.Type)
		}
		break
	}
	return out, nil
}
