// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/c8s-dev/c8s/kube/kubetest"
)

// follower follows Services, and Gateways that may be absent: of each it keeps
// the name.
func follower(t *testing.T, api http.Handler, objects, weight int) (*Follower, *lines) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{Handler: api, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()
	log := &lines{}
	kind := func(gv schema.GroupVersion, name, resource string, optional bool) Kind {
		return Kind{
			GroupVersion: gv, Name: name, Resource: resource, One: &service{}, Many: &list[service]{}, Optional: optional, Objects: objects, Weight: weight,
			Keep: func(obj any) (any, int) {
				s := obj.(*service)
				if s.Name == "unwanted" {
					return nil, 0
				}
				return s.Name, 1
			},
		}
	}
	f, err := NewFollower(FollowerConfig{
		API: &rest.Config{Host: "http://" + ln.Addr().String(), QPS: -1}, Now: time.Now, Log: slog.New(slog.NewTextHandler(log, nil)),
		Kinds: []Kind{
			kind(coreGV, "Service", "services", false),
			kind(schema.GroupVersion{Group: "gateway.networking.k8s.io", Version: "v1"}, "Gateway", "gateways", true),
		},
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		srv.Close()
		<-served
		if t.Failed() {
			t.Log(log)
		}
	})
	return f, log
}

// keeps waits until the names of all kinds are these.
func (l *lines) keeps(t *testing.T, f *Follower, want ...string) {
	t.Helper()
	deadline := time.After(40 * time.Second)
	for {
		kinds, ok := f.Objects()
		var got []string
		for _, kind := range kinds {
			for _, v := range kind {
				got = append(got, v.(string))
			}
		}
		slices.Sort(got)
		if ok && slices.Equal(got, want) {
			return
		}
		select {
		case <-f.Changed():
		case <-deadline:
			t.Fatalf("%v (all listed: %v), want %v", got, ok, want)
		}
	}
}

func gateway(name string) kubetest.Object {
	return kubetest.Object{"kind": "Gateway", "apiVersion": "gateway.networking.k8s.io/v1", "metadata": map[string]any{"namespace": "d", "name": name}}
}

func TestObjectsAreFollowed(t *testing.T) {
	api := kubetest.New()
	api.Set(kubetest.Service("d/a", 80), kubetest.Service("d/unwanted", 80), gateway("g"))
	f, log := follower(t, api, 100, 100)
	log.keeps(t, f, "a", "g")
	api.Set(kubetest.Service("d/b", 80))
	log.keeps(t, f, "a", "b", "g")
	api.Delete(gateway("g"))
	log.keeps(t, f, "a", "b")
}

// CRDs that are not installed are no trouble, and noticed when they are.
func TestKindsThatComeLaterAreFollowedThen(t *testing.T) {
	api := kubetest.New()
	api.Absent("gateway.networking.k8s.io", true)
	api.Set(kubetest.Service("d/a", 80), gateway("g"))
	f, log := follower(t, api, 100, 100)
	log.keeps(t, f, "a")
	if text := log.String(); strings.Contains(text, "cannot be followed") || strings.Contains(text, "lost") {
		t.Errorf("a kind that is optional is called trouble:\n%s", text)
	}
	api.Absent("gateway.networking.k8s.io", false)
	log.keeps(t, f, "a", "g")
}

func TestObjectsAreBoundedByNumberAndWeight(t *testing.T) {
	for _, tt := range []struct{ objects, weight int }{{3, 100}, {100, 3}} {
		api := kubetest.New()
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			api.Set(kubetest.Service("d/"+name, 80))
		}
		f, _ := follower(t, api, tt.objects, tt.weight)
		for ok := false; !ok; _, ok = f.Objects() {
			<-f.Changed()
		}
		kinds, _ := f.Objects()
		if len(kinds[0]) != 3 {
			t.Errorf("%+v: %d are kept", tt, len(kinds[0]))
		}
	}
	s := limited{&store[kept]{mu: &sync.Mutex{}, changed: func() {}, weight: func(v kept) int { return v.weight }, most: 9, items: map[string]kept{}, convert: func(any) (kept, bool) { return kept{1, 1}, true }}, 2}
	var all []any
	for _, name := range []string{"a", "b", "c"} {
		o := &service{}
		o.Name = name
		all = append(all, o)
	}
	must(t, s.Replace(all, ""))
	if len(s.items) != 2 || s.crowded != 1 {
		t.Errorf("of a list %d are kept and %d found no place", len(s.items), s.crowded)
	}
}

func TestAFollowersConfigurationMustBeWhole(t *testing.T) {
	if _, err := NewFollower(FollowerConfig{}); err == nil {
		t.Error("an empty configuration was accepted")
	}
}
