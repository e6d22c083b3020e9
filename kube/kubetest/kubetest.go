// SPDX-License-Identifier: Apache-2.0

// Package kubetest is an API server for tests: it lists and watches what it is
// told, true or not, takes statuses and events, and can go away and come back.
// It checks nothing: a real API server would refuse many of the lies that tests
// tell through it.
package kubetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Object is a Kubernetes object as JSON has it.
type Object map[string]any

// Server is the API server; it is a http.Handler.
type Server struct {
	mu      sync.Mutex
	version int
	kinds   map[string]*kind // by path
	more    chan struct{}    // closed when there are further events
	refuse  int              // status of every answer; 0: none is refused
	absent  map[string]bool  // API groups that are not installed
	posted  []Object         // events
	patches int
}

type kind struct {
	name, apiVersion string
	objects          map[string]Object
	events           []event
}

type event struct {
	version int
	Type    string `json:"type"`
	Object  Object `json:"object"`
}

// New makes a server without objects.
func New() *Server {
	s := &Server{more: make(chan struct{}), kinds: map[string]*kind{}, absent: map[string]bool{}}
	for path, name := range map[string]string{
		"/api/v1/nodes": "Node", "/api/v1/pods": "Pod", "/api/v1/services": "Service", "/api/v1/namespaces": "Namespace",
		"/apis/discovery.k8s.io/v1/endpointslices":           "EndpointSlice",
		"/apis/networking.k8s.io/v1/ingresses":               "Ingress",
		"/apis/networking.k8s.io/v1/ingressclasses":          "IngressClass",
		"/apis/gateway.networking.k8s.io/v1/gatewayclasses":  "GatewayClass",
		"/apis/gateway.networking.k8s.io/v1/gateways":        "Gateway",
		"/apis/gateway.networking.k8s.io/v1/httproutes":      "HTTPRoute",
		"/apis/gateway.networking.k8s.io/v1/grpcroutes":      "GRPCRoute",
		"/apis/gateway.networking.k8s.io/v1/referencegrants": "ReferenceGrant",
	} {
		version := strings.TrimPrefix(strings.TrimPrefix(path[:strings.LastIndexByte(path, '/')], "/apis/"), "/api/")
		s.kinds[path] = &kind{name: name, apiVersion: version, objects: map[string]Object{}}
	}
	return s
}

// Absent has the server not know an API group, as long as its CRDs are not
// installed.
func (s *Server) Absent(group string, absent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.absent[group] = absent
}

// Get returns an object as it is now; nil: there is none. The key is
// namespace/name, or /name.
func (s *Server) Get(kind, key string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kinds {
		if k.name == kind {
			if o, ok := k.objects[strings.TrimPrefix(key, "/")]; ok {
				return o.clone()
			}
			return k.objects["<nil>"+"/"+strings.TrimPrefix(key, "/")].clone()
		}
	}
	return nil
}

// Events returns the events that were written.
func (s *Server) Events() []Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Object{}, s.posted...)
}

// Patches is how many statuses were written.
func (s *Server) Patches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.patches
}

func (o Object) clone() (out Object) {
	raw, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

func (s *Server) kind(o Object) *kind {
	for _, k := range s.kinds {
		if k.name == o["kind"] {
			return k
		}
	}
	panic(fmt.Sprintf("kubetest: no such kind: %v", o["kind"]))
}

func (o Object) meta() map[string]any { return o["metadata"].(map[string]any) }

func (o Object) key() string { return fmt.Sprint(o.meta()["namespace"], "/", o.meta()["name"]) }

// Set adds or changes objects, one after the other.
func (s *Server) Set(objects ...Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range objects {
		k, typ := s.kind(o), "ADDED"
		if o["apiVersion"] == nil {
			o["apiVersion"] = k.apiVersion
		}
		if k.objects[o.key()] != nil {
			typ = "MODIFIED"
		}
		k.objects[o.key()] = o
		s.publish(k, typ, o)
	}
}

// Delete takes an object away.
func (s *Server) Delete(o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kind(o)
	delete(k.objects, o.key())
	s.publish(k, "DELETED", o)
}

// Emit sends an event that changes nothing here.
func (s *Server) Emit(path, typ string, o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish(s.kinds[path], typ, o)
}

// Refuse answers every further request with an HTTP status; 0 ends that.
func (s *Server) Refuse(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = status
}

func (s *Server) publish(k *kind, typ string, o Object) {
	s.version++
	if m, ok := o["metadata"].(map[string]any); ok {
		m["resourceVersion"] = strconv.Itoa(s.version)
	}
	k.events = append(k.events, event{s.version, typ, o.clone()}) // as it is now
	close(s.more)
	s.more = make(chan struct{})
}

// ServeHTTP answers lists and watches.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	k, refuse := s.kinds[r.URL.Path], s.refuse
	group, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/apis/"), "/")
	absent := s.absent[group]
	s.mu.Unlock()
	switch q := r.URL.Query(); {
	case refuse != 0:
		http.Error(w, "refused", refuse)
	case absent:
		http.NotFound(w, r)
	case r.Method == http.MethodPatch:
		s.patch(w, r)
	case r.Method == http.MethodPost:
		s.post(w, r)
	case k == nil:
		http.NotFound(w, r)
	case q.Get("watch") == "true" || q.Get("watch") == "1":
		from, _ := strconv.Atoi(q.Get("resourceVersion"))
		s.watch(w, r, k, from, q.Get("sendInitialEvents") == "true")
	default:
		s.list(w, k)
	}
}

func (s *Server) list(w http.ResponseWriter, k *kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []Object{}
	for _, o := range k.objects {
		items = append(items, o)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(Object{
		"kind": k.name + "List", "apiVersion": k.apiVersion, "items": items,
		"metadata": Object{"resourceVersion": strconv.Itoa(s.version)},
	})
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request, k *kind, from int, initial bool) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	s.mu.Lock()
	if initial {
		for _, o := range k.objects {
			_ = enc.Encode(event{Type: "ADDED", Object: o})
		}
		from = s.version
		_ = enc.Encode(event{Type: "BOOKMARK", Object: Object{"kind": k.name, "apiVersion": k.apiVersion, "metadata": Object{
			"resourceVersion": strconv.Itoa(from), "annotations": Object{"k8s.io/initial-events-end": "true"},
		}}})
	}
	for {
		for _, e := range k.events {
			if e.version > from {
				from = e.version
				_ = enc.Encode(e)
			}
		}
		more := s.more
		s.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-more:
			s.mu.Lock()
		case <-r.Context().Done():
			return
		}
	}
}

// patch merges a status into an object that is as the patch says it was.
func (s *Server) patch(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Status map[string]any `json:"status"`
	}
	at := strings.Split(strings.TrimPrefix(r.URL.Path, "/apis/"), "/") // group, version, "namespaces", namespace, resource, name, "status"
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || at[len(at)-1] != "status" {
		http.Error(w, "no patch of a status", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key, path := "<nil>/"+at[len(at)-2], "/apis/"+at[0]+"/"+at[1]+"/"+at[len(at)-3]
	if len(at) == 7 {
		key = at[3] + "/" + at[5]
	}
	k := s.kinds[path]
	if k == nil || k.objects[key] == nil {
		http.NotFound(w, r)
		return
	}
	o := k.objects[key].clone()
	if o["metadata"].(map[string]any)["resourceVersion"] != body.Metadata.ResourceVersion {
		http.Error(w, "the object has changed", http.StatusConflict)
		return
	}
	status, _ := o["status"].(map[string]any)
	if status == nil {
		status = map[string]any{}
	}
	for name, v := range body.Status {
		status[name] = v
	}
	o["status"] = status
	k.objects[key] = o
	s.patches++
	s.publish(k, "MODIFIED", o)
	_ = json.NewEncoder(w).Encode(o)
}

func (s *Server) post(w http.ResponseWriter, r *http.Request) {
	var o Object
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o["kind"] != "Event" {
		http.Error(w, "no event", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posted = append(s.posted, o)
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(o)
}

func meta(name string) map[string]any {
	namespace, short, ok := strings.Cut(name, "/")
	if !ok {
		return map[string]any{"name": name}
	}
	return map[string]any{"namespace": namespace, "name": short}
}

// Node is a node with an internal address and the prefixes of its pods.
func Node(name, addr string, podCIDRs ...string) Object {
	return Object{
		"kind": "Node", "apiVersion": "v1", "metadata": meta(name), "spec": Object{"podCIDRs": podCIDRs},
		"status": Object{"addresses": []Object{{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": addr}}},
	}
}

// Pod is a running pod; name is namespace/name.
func Pod(name, node string, addrs ...string) Object {
	ips := []Object{}
	for _, a := range addrs {
		ips = append(ips, Object{"ip": a})
	}
	return Object{
		"kind": "Pod", "apiVersion": "v1", "metadata": meta(name), "spec": Object{"nodeName": node},
		"status": Object{"phase": "Running", "podIPs": ips},
	}
}

// Service is a Service with one TCP port named "main".
func Service(name string, port int, clusterIPs ...string) Object {
	return Object{"kind": "Service", "apiVersion": "v1", "metadata": meta(name), "spec": Object{
		"type": "ClusterIP", "clusterIPs": clusterIPs, "ports": []Object{{"name": "main", "protocol": "TCP", "port": port}},
	}}
}

// Slice is an EndpointSlice of a Service, with pods that are ready at port.
func Slice(name, service string, port int, addrs ...string) Object {
	endpoints := []Object{}
	for _, a := range addrs {
		endpoints = append(endpoints, Object{"addresses": []string{a}, "conditions": Object{"ready": true}})
	}
	m := meta(name)
	m["labels"] = Object{"kubernetes.io/service-name": service}
	return Object{
		"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": m,
		"endpoints": endpoints, "ports": []Object{{"name": "main", "protocol": "TCP", "port": port}},
	}
}
