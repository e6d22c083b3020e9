// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// backoff of a watch that fails, up to 8 to 16 s. client-go's own goes on to a
// minute, also after the API server is back: for so long rollouts would be
// missed.
func backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 1, Cap: 8 * time.Second, Steps: 10}
}

// line is the connection to the API server that several stores are filled by.
type line struct {
	dirty chan struct{} // something changed since it was read from

	mu      sync.Mutex // of all stores: what is made of them is made of one moment
	contact contact
}

func newLine(now func() time.Time, log *slog.Logger) line {
	return line{dirty: make(chan struct{}, 1), contact: contact{now: now, log: log, said: "nothing", wrong: map[string]bool{}}}
}

func (l *line) changed() {
	select {
	case l.dirty <- struct{}{}:
	default:
	}
}

// source is what one store is filled from.
type source struct {
	client   rest.Interface
	resource string
	many     func() runtime.Object // an empty list
	most     int                   // objects
	optional bool                  // none while the API server does not know the resource
}

// follow keeps s up to date in the background. Callers hold mu.
func (l *line) follow(ctx context.Context, g *errgroup.Group, from source, one any, s cache.ReflectorStore) {
	l.contact.wrong[from.resource] = true
	r := cache.NewReflectorWithOptions(l.listWatch(from), one, s, cache.ReflectorOptions{Name: from.resource, Backoff: backoff()})
	g.Go(func() error { r.RunWithContext(ctx); return ctx.Err() })
}

// listWatch lists and watches one resource, remembers how it went, and lets no
// more than most objects through.
func (l *line) listWatch(s source) *cache.ListWatch {
	request := func(o *metav1.ListOptions) *rest.Request {
		return s.client.Get().Resource(s.resource).VersionedParams(o, metav1.ParameterCodec)
	}
	heard := func(ctx context.Context, err error) {
		if s.optional && apierrors.IsNotFound(err) {
			err = nil // that there are none is an answer; the next one is asked for after the backoff
		}
		l.heard(ctx, s.resource, err)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			out := s.many()
			err := request(&o).Do(ctx).Into(out)
			heard(ctx, err)
			if s.optional && apierrors.IsNotFound(err) {
				return s.many(), nil
			}
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			in, err := request(&o).Watch(ctx)
			heard(ctx, err)
			if err != nil {
				return nil, err
			}
			return watch.Filter(in, bounded(s.most)), nil
		},
	}
}

// bounded drops what is too much already while it arrives: a reflector keeps a
// whole list before it gives it to its store.
func bounded(most int) watch.FilterFunc {
	n := 0
	return func(e watch.Event) (watch.Event, bool) {
		switch e.Type {
		case watch.Added:
			n++
			return e, n <= most
		case watch.Deleted:
			n = max(n-1, 0)
		}
		return e, true
	}
}

// contact is how things stand with the API server.
type contact struct {
	now       func() time.Time
	log       *slog.Logger
	wrong     map[string]bool // resources that are not followed
	said      string          // kind of the trouble that was logged last
	connected bool
	since     time.Time
}

// heard takes the outcome of a request. Trouble is logged once, and again when
// it becomes another kind of trouble.
func (l *line) heard(ctx context.Context, resource string, err error) {
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.contact
	c.wrong[resource] = err != nil
	connected := true
	for _, wrong := range c.wrong {
		connected = connected && !wrong
	}
	trouble := string(apierrors.ReasonForError(err)) // empty: no answer at all
	switch {
	case connected && !c.connected:
		c.connected, c.since = true, c.now()
		c.log.Info("following the API server")
	case !connected && c.connected:
		c.connected, c.since, c.said = false, c.now(), trouble
		c.log.Error("the API server is lost; routes stay as they are, trying again", "watching", resource, "err", err)
	case err != nil && c.said != trouble:
		c.said = trouble
		c.log.Warn("the API server cannot be followed; trying again", "watching", resource, "err", err)
	}
}
