// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"reflect"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// store keeps of each object of one kind what routing needs, and never more
// than most of it. It is what a reflector writes to.
type store[V any] struct {
	mu      *sync.Mutex // the Watcher's: tables are made of all stores at one moment
	changed func()
	convert func(any) (V, bool)
	weight  func(V) int
	trim    cache.TransformFunc
	most    int // total weight

	items   map[string]V
	total   int
	synced  bool
	crowded int // objects that found no place, ever
}

var _ cache.TransformingStore = (*store[int])(nil)

func (s *store[V]) Add(obj any) error    { return s.update(obj) }
func (s *store[V]) Update(obj any) error { return s.update(obj) }
func (s *store[V]) Resync() error        { return nil }

func (s *store[V]) update(obj any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := keyOf(obj)
	if err != nil {
		return err
	}
	before, was := s.items[key]
	s.drop(key)
	s.put(key, obj)
	if after, is := s.items[key]; was != is || !reflect.DeepEqual(before, after) {
		s.changed() // most updates are about other fields
	}
	return nil
}

// Delete forgets an object.
func (s *store[V]) Delete(obj any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := keyOf(obj)
	if err != nil {
		return err
	}
	if _, was := s.items[key]; was {
		s.drop(key)
		s.changed()
	}
	return nil
}

// Replace takes a whole list.
func (s *store[V]) Replace(objs []any, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items, s.total = make(map[string]V, min(len(objs), s.most)), 0
	for _, obj := range objs {
		if key, err := keyOf(obj); err == nil {
			s.drop(key)
			s.put(key, obj)
		}
	}
	s.synced = true
	s.changed()
	return nil
}

// Transformer keeps objects small while a list arrives.
func (s *store[V]) Transformer() cache.TransformFunc { return s.trim }

func (s *store[V]) drop(key string) {
	if v, ok := s.items[key]; ok {
		s.total -= s.weight(v)
		delete(s.items, key)
	}
}

func (s *store[V]) put(key string, obj any) {
	v, keep := s.convert(obj)
	if !keep {
		return
	}
	w := s.weight(v)
	if s.total+w > s.most {
		s.crowded++
		return
	}
	s.items[key], s.total = v, s.total+w
}

// values returns what is kept. Callers hold mu.
func (s *store[V]) values() []V {
	out := make([]V, 0, len(s.items))
	for _, v := range s.items {
		out = append(out, v)
	}
	return out
}

func keyOf(obj any) (string, error) {
	o, ok := obj.(metav1.Object)
	if !ok {
		return "", fmt.Errorf("reading a Kubernetes object: %T has no metadata", obj)
	}
	key := named(o.GetNamespace(), o.GetName())
	if o.GetName() == "" || len(key) > maxName {
		return "", fmt.Errorf("reading a Kubernetes object: a name of %d bytes", len(key))
	}
	return key, nil
}

// trim takes out the bulk of an object's metadata.
func trim(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
		o.SetAnnotations(nil)
		o.SetOwnerReferences(nil)
		o.SetFinalizers(nil)
		var labels map[string]string
		for _, key := range [...]string{serviceLabel, zoneLabel} {
			if value, ok := o.GetLabels()[key]; ok {
				labels = map[string]string{key: value} // no object needs both
			}
		}
		o.SetLabels(labels)
	}
	return obj, nil
}
