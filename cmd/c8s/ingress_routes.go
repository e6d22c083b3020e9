// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/version"
	"github.com/c8s-dev/c8s/ingress/daemon"
	"github.com/c8s-dev/c8s/kube"
)

// ingressRoutesFlags say which requests lead where.
type ingressRoutesFlags struct {
	file         string
	ingressClass string
	gatewayClass string
	addresses    []string
	readOnly     bool
}

func (r *ingressRoutesFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.file, "ingress-routes", "", "JSON file of hosts, paths and the Services behind them, instead of Ingress and Gateway API objects; required with --no-kubernetes")
	f.StringVar(&r.ingressClass, "ingress-class", "", "the only IngressClass that is served; empty: every one that names this controller")
	f.StringVar(&r.gatewayClass, "gateway-class", "", "the only GatewayClass that is served; empty: every one that names this controller")
	f.StringSliceVar(&r.addresses, "publish-address", nil, "address or name at which clients reach the ingress, for the statuses of Ingresses and Gateways (repeatable)")
	f.BoolVar(&r.readOnly, "kubernetes-read-only", false, "write no statuses and no events to the API server")
}

func (r *ingressRoutesFlags) check(noKubernetes bool) error {
	if noKubernetes {
		return requireFlag("ingress-routes", r.file)
	}
	if r.file != "" && (r.ingressClass != "" || r.gatewayClass != "" || len(r.addresses) > 0) {
		return exit.Usage(errors.New("--ingress-class, --gateway-class and --publish-address are for routes from Kubernetes; with --ingress-routes they mean nothing"))
	}
	return nil
}

func (r *ingressRoutesFlags) kubernetes(kubeconfig string, l *ingressListenFlags) (*daemon.Kubernetes, error) {
	api, err := kube.Connect(kubeconfig, "c8s-ingress/"+version.String())
	if err != nil {
		return nil, exit.Usage(errors.Join(err, errors.New("outside of a pod give --kubeconfig, or --ingress-routes")))
	}
	https, err := portOf(l.https)
	if err != nil {
		return nil, err
	}
	http, err := portOf(l.http)
	if err != nil {
		return nil, err
	}
	return &daemon.Kubernetes{
		API: api, IngressClass: r.ingressClass, GatewayClass: r.gatewayClass, HTTPS: https, HTTP: http, Addresses: r.addresses, ReadOnly: r.readOnly,
	}, nil
}
