// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// What is written is bounded in time, whatever the objects do: a lying API
// server must not have the ingress talk to it all day.
const (
	writesPerSecond = 5
	writesAtOnce    = 50
	writeTimeout    = 10 * time.Second
	retryWrites     = 15 * time.Second
	perObject       = 10               // writes at once about one object, and then one for each retry
	eventEvery      = 30 * time.Minute // the API server forgets events after an hour
	maxEvents       = 4096             // remembered
)

// writer puts statuses and events where kubectl shows them.
type writer struct {
	client rest.Interface
	name   string
	now    func() time.Time
	log    *slog.Logger
	limit  *rate.Limiter

	latest chan []Update            // the newest that should be, at most one
	sent   map[string]string        // by object: the version that was written about
	limits map[string]*rate.Limiter // by object
	events map[string]time.Time     // by object and finding: when it was said
	failed bool
}

func newWriter(cfg *Config) (*writer, error) {
	api := rest.CopyConfig(cfg.API)
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, networkingGV)
	api.GroupVersion, api.APIPath = &networkingGV, "/apis" // requests name their whole path
	api.NegotiatedSerializer = serializer.NewCodecFactory(s).WithoutConversion()
	api.ContentType, api.AcceptContentTypes, api.Timeout = runtime.ContentTypeJSON, runtime.ContentTypeJSON, writeTimeout
	client, err := rest.RESTClientFor(api)
	if err != nil {
		return nil, fmt.Errorf("preparing to write statuses: %w", err)
	}
	return &writer{
		client: client, name: cmp.Or(cfg.Name, "c8s-ingress"), now: cfg.Now, log: cfg.Log, limit: rate.NewLimiter(writesPerSecond, writesAtOnce),
		latest: make(chan []Update, 1), sent: map[string]string{}, limits: map[string]*rate.Limiter{}, events: map[string]time.Time{},
	}, nil
}

// offer replaces what should be written.
func (w *writer) offer(all []Update) {
	select {
	case <-w.latest:
	default:
	}
	w.latest <- all
}

func (w *writer) run(ctx context.Context) error {
	var all []Update
	retry := time.NewTicker(retryWrites) // what failed, and events that are forgotten
	defer retry.Stop()
	for {
		select {
		case all = <-w.latest:
		case <-retry.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := w.write(ctx, all); err != nil {
			return err
		}
	}
}

// write does what was not done yet.
func (w *writer) write(ctx context.Context, all []Update) error {
	before, limits := w.sent, w.limits
	w.sent, w.limits = make(map[string]string, len(all)), map[string]*rate.Limiter{}
	failed := error(nil)
	for i := range all {
		u := &all[i]
		key := u.Kind + " " + u.Namespace + "/" + u.Name
		if before[key] == u.Version && u.Version != "" {
			w.sent[key] = u.Version // its change is on its way here
		} else if u.Status != nil && w.mayWrite(key, limits) {
			if err := w.limit.Wait(ctx); err != nil {
				return err
			}
			switch err := w.patch(ctx, u); {
			case err == nil, apierrors.IsConflict(err), apierrors.IsNotFound(err): // the next table will say
				w.sent[key] = u.Version
			default:
				failed = cmp.Or(failed, fmt.Errorf("writing the status of %s: %w", key, err))
			}
		}
		for _, f := range u.Findings {
			if err := w.event(ctx, u, key, f); err != nil {
				failed = cmp.Or(failed, err)
			}
		}
	}
	w.tell(ctx, failed)
	return ctx.Err()
}

// mayWrite holds the writing about one object to a rate: somebody else may want
// another status each time.
func (w *writer) mayWrite(key string, before map[string]*rate.Limiter) bool {
	l := before[key]
	if l == nil {
		l = rate.NewLimiter(rate.Every(retryWrites), perObject)
	}
	w.limits[key] = l
	return l.AllowN(w.now(), 1)
}

// tell logs once that writing fails, and that it works again.
func (w *writer) tell(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil || (err != nil) == w.failed:
		return
	case err != nil:
		w.log.Warn("statuses of routes cannot be written to the API server; requests are served all the same", "err", err)
	default:
		w.log.Info("statuses of routes are written again")
	}
	w.failed = err != nil
}

// resources are where the kinds are.
var resources = map[string]string{
	"Ingress":      "/apis/networking.k8s.io/v1/namespaces/%s/ingresses/%s/status",
	"GatewayClass": "/apis/gateway.networking.k8s.io/v1%.0s/gatewayclasses/%s/status",
	"Gateway":      "/apis/gateway.networking.k8s.io/v1/namespaces/%s/gateways/%s/status",
	"HTTPRoute":    "/apis/gateway.networking.k8s.io/v1/namespaces/%s/httproutes/%s/status",
	"GRPCRoute":    "/apis/gateway.networking.k8s.io/v1/namespaces/%s/grpcroutes/%s/status",
}

// patch writes a status, if the object is still the one that it is about:
// lists, of which others may own a part, are replaced as a whole.
func (w *writer) patch(ctx context.Context, u *Update) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": u.Version}, "status": u.Status})
	if err != nil {
		return err
	}
	path := fmt.Sprintf(resources[u.Kind], u.Namespace, u.Name)
	return w.client.Patch(types.MergePatchType).AbsPath(path).Body(body).Do(ctx).Error()
}

// event says a finding in the object's events, where kubectl describe shows it.
func (w *writer) event(ctx context.Context, u *Update, key string, f Finding) error {
	now, id := w.now(), key+" "+f.Reason+" "+f.Message
	if said, ok := w.events[id]; ok && now.Sub(said) < eventEvery {
		return nil
	}
	if len(w.events) >= maxEvents {
		for k, said := range w.events {
			if now.Sub(said) >= eventEvery {
				delete(w.events, k)
			}
		}
		if len(w.events) >= maxEvents {
			return nil
		}
	}
	if err := w.limit.Wait(ctx); err != nil {
		return err
	}
	w.events[id] = now // also when it fails: another try can wait as well
	sum := sha256.Sum256(fmt.Append(nil, id, now.UnixNano()))
	at := metav1.NewTime(now)
	body, err := json.Marshal(map[string]any{
		"kind": "Event", "apiVersion": "v1",
		"metadata":       map[string]any{"namespace": u.Namespace, "name": cut(u.Name, 200) + "." + hex.EncodeToString(sum[:8])},
		"involvedObject": map[string]any{"kind": u.Kind, "apiVersion": "networking.k8s.io/v1", "namespace": u.Namespace, "name": u.Name, "uid": u.UID},
		"reason":         f.Reason, "message": cut(f.Message, maxMessage-3), "type": "Warning", "count": 1,
		"firstTimestamp": at, "lastTimestamp": at,
		"source":             map[string]any{"component": "c8s-ingress", "host": w.name},
		"reportingComponent": Controller, "reportingInstance": w.name,
	})
	if err != nil {
		return err
	}
	if err := w.client.Post().AbsPath("/api/v1/namespaces/" + u.Namespace + "/events").Body(body).Do(ctx).Error(); err != nil {
		return fmt.Errorf("writing an event about %s: %w", key, err)
	}
	return nil
}
