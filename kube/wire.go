// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// The types below are the API's (Kubernetes API reference, v1.37), reduced to
// the fields that routing needs: what is not here is never decoded. They keep
// k8s.io/api out of the binary.

type pod struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              podSpec   `json:"spec"`
	Status            podStatus `json:"status"`
}

type podSpec struct {
	NodeName    string `json:"nodeName"`
	HostNetwork bool   `json:"hostNetwork"`
}

type podStatus struct {
	Phase  string  `json:"phase"`
	PodIP  string  `json:"podIP"`
	PodIPs []podIP `json:"podIPs"`
}

type podIP struct {
	IP string `json:"ip"`
}

type node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              nodeSpec   `json:"spec"`
	Status            nodeStatus `json:"status"`
}

type nodeSpec struct {
	PodCIDRs []string `json:"podCIDRs"`
}

type nodeStatus struct {
	Addresses []nodeAddress `json:"addresses"`
}

type nodeAddress struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

type service struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              serviceSpec   `json:"spec"`
	Status            serviceStatus `json:"status"`
}

type serviceSpec struct {
	Type                  string         `json:"type"`
	ClusterIPs            []string       `json:"clusterIPs"`
	ExternalIPs           []string       `json:"externalIPs"`
	ExternalName          string         `json:"externalName"`
	Ports                 []wirePort     `json:"ports"`
	SessionAffinity       string         `json:"sessionAffinity"`
	SessionAffinityConfig affinityConfig `json:"sessionAffinityConfig"`
	InternalTrafficPolicy string         `json:"internalTrafficPolicy"`
}

type affinityConfig struct {
	ClientIP clientIPConfig `json:"clientIP"`
}

type clientIPConfig struct {
	TimeoutSeconds int32 `json:"timeoutSeconds"`
}

type serviceStatus struct {
	LoadBalancer loadBalancer `json:"loadBalancer"`
}

type loadBalancer struct {
	Ingress []ingress `json:"ingress"`
}

type ingress struct {
	IP string `json:"ip"`
}

// wirePort is a port of a Service or of an EndpointSlice.
type wirePort struct {
	Name        string `json:"name"`
	Protocol    string `json:"protocol"` // the API server fills in TCP
	Port        int32  `json:"port"`
	AppProtocol string `json:"appProtocol"`
}

type endpointSlice struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Endpoints         []endpoint `json:"endpoints"`
	Ports             []wirePort `json:"ports"`
}

type endpoint struct {
	Addresses  []string   `json:"addresses"`
	NodeName   string     `json:"nodeName"`
	Hostname   string     `json:"hostname"`
	Conditions conditions `json:"conditions"`
	Hints      hints      `json:"hints"`
}

type hints struct {
	ForZones []hint `json:"forZones"`
	ForNodes []hint `json:"forNodes"`
}

type hint struct {
	Name string `json:"name"`
}

// conditions: absent means true for ready and serving, false for terminating.
type conditions struct {
	Ready       *bool `json:"ready"`
	Serving     *bool `json:"serving"`
	Terminating *bool `json:"terminating"`
}

func (p *pod) DeepCopyObject() runtime.Object {
	c := *p
	c.ObjectMeta = *p.ObjectMeta.DeepCopy()
	c.Status.PodIPs = slices.Clone(p.Status.PodIPs)
	return &c
}

func (n *node) DeepCopyObject() runtime.Object {
	c := *n
	c.ObjectMeta = *n.ObjectMeta.DeepCopy()
	c.Spec.PodCIDRs, c.Status.Addresses = slices.Clone(n.Spec.PodCIDRs), slices.Clone(n.Status.Addresses)
	return &c
}

func (s *service) DeepCopyObject() runtime.Object {
	c := *s
	c.ObjectMeta = *s.ObjectMeta.DeepCopy()
	c.Spec.ClusterIPs, c.Spec.Ports = slices.Clone(s.Spec.ClusterIPs), slices.Clone(s.Spec.Ports)
	c.Spec.ExternalIPs, c.Status.LoadBalancer.Ingress = slices.Clone(s.Spec.ExternalIPs), slices.Clone(s.Status.LoadBalancer.Ingress)
	return &c
}

func (s *endpointSlice) DeepCopyObject() runtime.Object {
	c := *s
	c.ObjectMeta = *s.ObjectMeta.DeepCopy()
	c.Endpoints, c.Ports = slices.Clone(s.Endpoints), slices.Clone(s.Ports)
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		e.Addresses = slices.Clone(e.Addresses) // conditions are never written to
		e.Hints.ForZones, e.Hints.ForNodes = slices.Clone(e.Hints.ForZones), slices.Clone(e.Hints.ForNodes)
	}
	return &c
}

// list is the list of any of them.
type list[T any] struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []T `json:"items"`
}

func (l *list[T]) DeepCopyObject() runtime.Object {
	c := *l
	c.Items = make([]T, len(l.Items))
	for i := range l.Items {
		c.Items[i] = *any(any(&l.Items[i]).(runtime.Object).DeepCopyObject()).(*T)
	}
	return &c
}

var (
	coreGV      = schema.GroupVersion{Version: "v1"}
	discoveryGV = schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}
)

// codecs decode the types above, and the frames of a watch.
func codecs() serializer.CodecFactory {
	s := runtime.NewScheme()
	for _, gv := range []schema.GroupVersion{coreGV, discoveryGV} {
		metav1.AddToGroupVersion(s, gv)
	}
	add := func(gv schema.GroupVersion, kind string, one, many runtime.Object) {
		s.AddKnownTypeWithName(gv.WithKind(kind), one)
		s.AddKnownTypeWithName(gv.WithKind(kind+"List"), many)
	}
	add(coreGV, "Pod", &pod{}, &list[pod]{})
	add(coreGV, "Node", &node{}, &list[node]{})
	add(coreGV, "Service", &service{}, &list[service]{})
	add(discoveryGV, "EndpointSlice", &endpointSlice{}, &list[endpointSlice]{})
	utilruntime.Must(metav1.AddMetaToScheme(s))
	return serializer.NewCodecFactory(s)
}
