// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Kind is a kind of objects that a Follower follows.
type Kind struct {
	GroupVersion schema.GroupVersion
	Name         string // "HTTPRoute"
	Resource     string // "httproutes"
	One, Many    runtime.Object
	Optional     bool // it is no trouble that the API server does not know the resource; that it came to is noticed within 16 s
	Objects      int  // at most so many are kept
	Weight       int  // and of these at most so much together
	// Keep returns what is kept of an object of the type of One, nil for nothing, and what
	// it weighs. It owns the object. What compares as deeply equal is no change.
	Keep func(obj any) (kept any, weight int)
}

// FollowerConfig is what a Follower is given. All fields are required.
type FollowerConfig struct {
	API   *rest.Config // from Connect
	Kinds []Kind
	Now   func() time.Time
	Log   *slog.Logger
}

// Follower keeps objects of some kinds as the API server last told them, within
// limits. It is for those who make something of them that is no routing table.
type Follower struct {
	cfg FollowerConfig
	line
	stores []*store[kept]
}

type kept struct {
	value  any
	weight int
}

// NewFollower prepares one. Nothing is asked until Run.
func NewFollower(cfg FollowerConfig) (*Follower, error) {
	if cfg.API == nil || len(cfg.Kinds) == 0 || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing to follow objects of Kubernetes: the configuration lacks a part")
	}
	f := &Follower{cfg: cfg, line: newLine(cfg.Now, cfg.Log)}
	for _, k := range cfg.Kinds {
		f.stores = append(f.stores, &store[kept]{
			mu: &f.mu, changed: f.changed, most: k.Weight, items: map[string]kept{}, trim: withoutHistory,
			weight: func(v kept) int { return v.weight },
			convert: func(obj any) (kept, bool) {
				value, weight := k.Keep(obj)
				return kept{value, weight}, value != nil
			},
		})
	}
	return f, nil
}

// Changed receives when something may have changed since it did before.
func (f *Follower) Changed() <-chan struct{} { return f.dirty }

// Objects returns what is kept, in the order of the kinds, of one moment; ok:
// all kinds were listed once. The objects are not to be changed.
func (f *Follower) Objects() (kinds [][]any, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kinds, ok = make([][]any, len(f.stores)), true
	for i, s := range f.stores {
		ok = ok && s.synced
		for _, v := range s.values() {
			kinds[i] = append(kinds[i], v.value)
		}
	}
	return kinds, ok
}

// Crowded is how many objects found no place, ever.
func (f *Follower) Crowded() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.stores {
		n += s.crowded
	}
	return n
}

// Run follows until ctx ends. Once.
func (f *Follower) Run(ctx context.Context) error {
	s := runtime.NewScheme()
	utilruntime.Must(metav1.AddMetaToScheme(s))
	for _, k := range f.cfg.Kinds {
		metav1.AddToGroupVersion(s, k.GroupVersion)
		s.AddKnownTypeWithName(k.GroupVersion.WithKind(k.Name), k.One)
		s.AddKnownTypeWithName(k.GroupVersion.WithKind(k.Name+"List"), k.Many)
	}
	base := rest.CopyConfig(f.cfg.API)
	base.NegotiatedSerializer = serializer.NewCodecFactory(s).WithoutConversion()
	base.ContentType, base.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	http, err := rest.HTTPClientFor(base)
	if err != nil {
		return fmt.Errorf("preparing the connection to the API server: %w", err)
	}
	sources := make([]source, len(f.cfg.Kinds))
	for i, k := range f.cfg.Kinds {
		c := rest.CopyConfig(base)
		c.GroupVersion, c.APIPath = &k.GroupVersion, "/apis"
		if k.GroupVersion.Group == "" {
			c.APIPath = "/api"
		}
		client, err := rest.RESTClientForConfigAndClient(c, http)
		if err != nil {
			return fmt.Errorf("preparing to follow %s: %w", k.Resource, err)
		}
		sources[i] = source{client: client, resource: k.Resource, many: k.Many.DeepCopyObject, most: k.Objects, optional: k.Optional}
	}
	g, ctx := errgroup.WithContext(quiet(ctx, f.cfg.Log))
	f.mu.Lock()
	for i, from := range sources {
		f.follow(ctx, g, from, f.cfg.Kinds[i].One, limited{f.stores[i], from.most})
	}
	f.mu.Unlock()
	return g.Wait()
}

// limited holds a store to a number of objects as well.
type limited struct {
	*store[kept]
	objects int
}

var _ cache.TransformingStore = limited{}

func (s limited) Replace(objs []any, version string) error {
	extra := max(len(objs)-s.objects, 0)
	if extra > 0 {
		s.mu.Lock()
		s.crowded += extra
		s.mu.Unlock()
	}
	return s.store.Replace(objs[:len(objs)-extra], version)
}

// withoutHistory takes out of an object's metadata what nobody reads.
func withoutHistory(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
		o.SetOwnerReferences(nil)
		o.SetFinalizers(nil)
	}
	return obj, nil
}
