// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
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
