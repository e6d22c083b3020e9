// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// Connect says how the API server is reached: by the kubeconfig file, or with
// the service account of the pod that this program runs in when there is none.
func Connect(kubeconfig, userAgent string) (*rest.Config, error) {
	var cfg *rest.Config
	var err error
	if kubeconfig == "" {
		cfg, err = rest.InClusterConfig()
	} else {
		cfg, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the API server: %w", err)
	}
	cfg.UserAgent, cfg.WarningHandlerWithContext = userAgent, rest.NoWarnings{}
	cfg.QPS = -1 // four watches, which back off by themselves
	return cfg, nil
}

type clients struct{ core, discovery rest.Interface }

func newClients(api *rest.Config) (clients, error) {
	base := rest.CopyConfig(api)
	base.NegotiatedSerializer = codecs().WithoutConversion()
	base.ContentType, base.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	http, err := rest.HTTPClientFor(base)
	if err != nil {
		return clients{}, fmt.Errorf("preparing the connection to the API server: %w", err)
	}
	core, discovery := rest.CopyConfig(base), rest.CopyConfig(base)
	core.APIPath, core.GroupVersion = "/api", &coreGV
	discovery.APIPath, discovery.GroupVersion = "/apis", &discoveryGV
	var c clients
	if c.core, err = rest.RESTClientForConfigAndClient(core, http); err == nil {
		c.discovery, err = rest.RESTClientForConfigAndClient(discovery, http)
	}
	if err != nil {
		return clients{}, fmt.Errorf("preparing the connection to the API server: %w", err)
	}
	return c, nil
}

// source lists and watches one resource, remembers how it went, and lets no
// more than most objects through.
func (w *Watcher) source(c rest.Interface, resource string, many func() runtime.Object, most int) *cache.ListWatch {
	request := func(o *metav1.ListOptions) *rest.Request {
		return c.Get().Resource(resource).VersionedParams(o, metav1.ParameterCodec)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			out := many()
			err := request(&o).Do(ctx).Into(out)
			w.heard(ctx, resource, err)
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			in, err := request(&o).Watch(ctx)
			w.heard(ctx, resource, err)
			if err != nil {
				return nil, err
			}
			return watch.Filter(in, bounded(most)), nil
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
func (w *Watcher) heard(ctx context.Context, resource string, err error) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &w.contact
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

// quiet has client-go's own words logged for those who look for them: that
// the API server is away is said once, by heard.
func quiet(ctx context.Context, log *slog.Logger) context.Context {
	return klog.NewContext(ctx, logr.FromSlogHandler(debugHandler{log.Handler()}))
}

// debugHandler makes everything a debug message, and drops what is below that:
// from verbosity 5 on client-go logs whole requests and answers.
type debugHandler struct{ slog.Handler }

func (h debugHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelDebug && h.Handler.Enabled(ctx, slog.LevelDebug)
}

func (h debugHandler) Handle(ctx context.Context, r slog.Record) error {
	if !h.Enabled(ctx, r.Level) {
		return nil // logr does not ask before it logs an error
	}
	r.Level = slog.LevelDebug
	return h.Handler.Handle(ctx, r)
}

func (h debugHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return debugHandler{h.Handler.WithAttrs(attrs)}
}

func (h debugHandler) WithGroup(name string) slog.Handler {
	return debugHandler{h.Handler.WithGroup(name)}
}
