// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/version"
	"github.com/c8s-dev/c8s/kube"
)

// routesFlags say who is asked where pods are.
type routesFlags struct {
	file         string
	kubeconfig   string
	noKubernetes bool
}

func (r *routesFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.file, "routes", "", "JSON file {pod prefix: node address}; wins over what Kubernetes says, and is required with --no-kubernetes")
	f.StringVar(&r.kubeconfig, "kubeconfig", "", "file that says how to reach the API server; default: the service account of the daemon's pod")
	f.BoolVar(&r.noKubernetes, "no-kubernetes", false, "ask no API server where pods are and what is behind Services")
	completeFile(c, "json", "routes")
}

func (r *routesFlags) check() error {
	switch {
	case r.noKubernetes && r.kubeconfig != "":
		return exit.Usage(errors.New("--kubeconfig and --no-kubernetes exclude each other"))
	case r.noKubernetes:
		return requireFlag("routes", r.file)
	}
	return nil
}

// cluster returns what follows the API server, nil where none is to be asked.
// There it is known as program.
func (r *routesFlags) cluster(node netip.Addr, program string, log *slog.Logger) (agent.Cluster, error) {
	if r.noKubernetes {
		return nil, nil
	}
	api, err := kube.Connect(r.kubeconfig, program+"/"+version.String())
	if err != nil {
		return nil, exit.Usage(errors.Join(err, errors.New("outside of a pod give --kubeconfig, or --no-kubernetes with --routes")))
	}
	return kube.New(kube.Config{API: api, NodeAddr: node, Now: time.Now, Log: log})
}
