// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/c8s-dev/c8s/kube"
)

// Objects is what Build makes routes of. Nothing of it is believed, and nothing
// of it is changed.
type Objects struct {
	IngressClasses []*IngressClass
	Ingresses      []*Ingress
	GatewayClasses []*gateway.GatewayClass
	Gateways       []*gateway.Gateway
	HTTPRoutes     []*gateway.HTTPRoute
	GRPCRoutes     []*gateway.GRPCRoute
	Grants         []*gateway.ReferenceGrant
	Namespaces     []*Namespace
}

// The types of networking.k8s.io/v1 (Kubernetes API reference, v1.37), reduced
// to what routes need, as in package kube: they keep k8s.io/api out of the
// binary.

// Ingress is networking.k8s.io/v1 Ingress.
type Ingress struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              IngressSpec   `json:"spec"`
	Status            IngressStatus `json:"status"`
}

// IngressSpec is its specification.
type IngressSpec struct {
	Class   *string         `json:"ingressClassName"`
	Default *IngressBackend `json:"defaultBackend"`
	TLS     []IngressTLS    `json:"tls"`
	Rules   []IngressRule   `json:"rules"`
}

// IngressTLS names a Secret, which nobody reads.
type IngressTLS struct {
	SecretName string `json:"secretName"`
}

// IngressRule has paths for a host; no host means all.
type IngressRule struct {
	Host string       `json:"host"`
	HTTP *IngressHTTP `json:"http"`
}

// IngressHTTP has the paths.
type IngressHTTP struct {
	Paths []IngressPath `json:"paths"`
}

// IngressPath leads a path to a backend.
type IngressPath struct {
	Path     string         `json:"path"`
	PathType string         `json:"pathType"`
	Backend  IngressBackend `json:"backend"`
}

// IngressBackend is a Service of the same namespace, or some other object.
type IngressBackend struct {
	Service  *IngressService `json:"service"`
	Resource *struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"resource"`
}

// IngressService is a port of a Service.
type IngressService struct {
	Name string `json:"name"`
	Port struct {
		Name   string `json:"name"`
		Number int32  `json:"number"`
	} `json:"port"`
}

// IngressStatus says where clients go.
type IngressStatus struct {
	LoadBalancer IngressLoadBalancer `json:"loadBalancer"`
}

// IngressLoadBalancer has the addresses.
type IngressLoadBalancer struct {
	Ingress []IngressAddress `json:"ingress,omitempty"`
}

// IngressAddress is one address, or name.
type IngressAddress struct {
	IP       string `json:"ip,omitempty"`
	Hostname string `json:"hostname,omitempty"`
}

// IngressClass is networking.k8s.io/v1 IngressClass.
type IngressClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Controller string `json:"controller"`
	} `json:"spec"`
}

// Namespace is core/v1 Namespace: its labels choose which routes a Gateway takes.
type Namespace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
}

// DeepCopyObject implements runtime.Object.
func (i *Ingress) DeepCopyObject() runtime.Object { return copied(i) }

// DeepCopyObject implements runtime.Object.
func (c *IngressClass) DeepCopyObject() runtime.Object { return copied(c) }

// DeepCopyObject implements runtime.Object.
func (n *Namespace) DeepCopyObject() runtime.Object { return copied(n) }

// copied copies by way of JSON: client-go copies next to nothing of what it is
// given here, and these types are what JSON has.
func copied[T any](in *T) *T {
	out := new(T)
	if raw, err := json.Marshal(in); err == nil {
		_ = json.Unmarshal(raw, out)
	}
	return out
}

// list is the list of any of them.
type list[T any] struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []T `json:"items"`
}

func (l *list[T]) DeepCopyObject() runtime.Object {
	c := copied(l)
	c.Items = slices.Clip(c.Items)
	return c
}

var networkingGV = schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}

// Limits, so that nobody can fill the ingress's memory with objects. Weights are
// in KiB of JSON.
const (
	maxClasses    = 256
	maxGateways   = 1000
	maxRoutes     = 20_000 // of each kind
	maxGrants     = 5000
	maxNamespaces = 20_000
	perRoutes     = 64 << 10
	perOthers     = 16 << 10
)

// kinds are what is followed, in the order in which objectsOf takes them.
func kinds() []kube.Kind {
	gv := schema.GroupVersion{Group: gateway.GroupName, Version: "v1"}
	core := schema.GroupVersion{Version: "v1"}
	return []kube.Kind{
		{GroupVersion: networkingGV, Name: "IngressClass", Resource: "ingressclasses", One: &IngressClass{}, Many: &list[IngressClass]{}, Objects: maxClasses, Weight: perOthers, Keep: keep},
		{GroupVersion: networkingGV, Name: "Ingress", Resource: "ingresses", One: &Ingress{}, Many: &list[Ingress]{}, Objects: maxRoutes, Weight: perRoutes, Keep: keep},
		{GroupVersion: gv, Name: "GatewayClass", Resource: "gatewayclasses", One: &gateway.GatewayClass{}, Many: &gateway.GatewayClassList{}, Optional: true, Objects: maxClasses, Weight: perOthers, Keep: keep},
		{GroupVersion: gv, Name: "Gateway", Resource: "gateways", One: &gateway.Gateway{}, Many: &gateway.GatewayList{}, Optional: true, Objects: maxGateways, Weight: perOthers, Keep: keep},
		{GroupVersion: gv, Name: "HTTPRoute", Resource: "httproutes", One: &gateway.HTTPRoute{}, Many: &gateway.HTTPRouteList{}, Optional: true, Objects: maxRoutes, Weight: perRoutes, Keep: keep},
		{GroupVersion: gv, Name: "GRPCRoute", Resource: "grpcroutes", One: &gateway.GRPCRoute{}, Many: &gateway.GRPCRouteList{}, Optional: true, Objects: maxRoutes, Weight: perRoutes, Keep: keep},
		{GroupVersion: gv, Name: "ReferenceGrant", Resource: "referencegrants", One: &gateway.ReferenceGrant{}, Many: &gateway.ReferenceGrantList{}, Optional: true, Objects: maxGrants, Weight: perOthers, Keep: keep},
		{GroupVersion: core, Name: "Namespace", Resource: "namespaces", One: &Namespace{}, Many: &list[Namespace]{}, Objects: maxNamespaces, Weight: perOthers, Keep: keep},
	}
}

// keep weighs an object by its JSON: what its fields take is near that.
func keep(obj any) (any, int) {
	raw, err := json.Marshal(obj)
	if err != nil {
		return nil, 0
	}
	return obj, 1 + len(raw)/1024
}

func objectsOf(all [][]any) *Objects {
	return &Objects{
		IngressClasses: as[IngressClass](all[0]), Ingresses: as[Ingress](all[1]),
		GatewayClasses: as[gateway.GatewayClass](all[2]), Gateways: as[gateway.Gateway](all[3]),
		HTTPRoutes: as[gateway.HTTPRoute](all[4]), GRPCRoutes: as[gateway.GRPCRoute](all[5]),
		Grants: as[gateway.ReferenceGrant](all[6]), Namespaces: as[Namespace](all[7]),
	}
}

// as leaves out what is of another type: an API server may say anything.
func as[T any](all []any) (out []*T) {
	for _, o := range all {
		if v, ok := o.(*T); ok {
			out = append(out, v)
		}
	}
	return out
}
