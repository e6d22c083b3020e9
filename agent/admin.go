// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/internal/unixsock"
)

// SocketName is the admin socket's file name inside the run folder.
const SocketName = "c8s.sock"

// MaxFlowHistory bounds how many past flow records one request may ask for.
const MaxFlowHistory = 10_000

// admin answers `c8s status` and `c8s flows` on a unix socket that only root
// may open. It reads; nothing can be changed through it.
type admin struct {
	status func() Status
	flows  *flow.Ring
	log    *slog.Logger
}

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", a.getStatus)
	mux.HandleFunc("GET /v1/flows", a.getFlows)
	return mux
}

func (a *admin) getStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(a.status()); err != nil {
		a.log.Debug("admin: writing status", "err", err)
	}
}

// getFlows streams newline-delimited JSON: the last ?n= records that fit the
// filter (flow.ParseFilter), then, with ?follow=1, every new one until the
// client goes away.
func (a *admin) getFlows(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil || n < 0 || n > MaxFlowHistory {
		http.Error(w, fmt.Sprintf("n must be a number between 0 and %d", MaxFlowHistory), http.StatusBadRequest)
		return
	}
	filter, err := flow.ParseFilter(r.Form)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	sub := a.flows.Subscribe(n, filter)
	defer sub.Close()
	for _, rec := range sub.History() {
		if enc.Encode(rec) != nil {
			return
		}
	}
	if r.FormValue("follow") != "1" {
		return
	}
	flush := http.NewResponseController(w)
	for {
		if flush.Flush() != nil {
			return
		}
		rec, err := sub.Next(r.Context())
		if err != nil || enc.Encode(rec) != nil {
			return
		}
	}
}

// serve listens on the socket in dir until ctx ends. A socket left by a
// killed daemon is replaced.
func (a *admin) serve(ctx context.Context, dir string) error {
	ln, err := unixsock.Listen(dir, SocketName, "unix")
	if err != nil {
		return fmt.Errorf("opening the admin socket: %w", err)
	}
	return serveHTTP(ctx, ln, a.handler())
}

// serveHTTP runs a small internal server until ctx ends.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

// Client reads a running daemon's admin socket.
type Client struct{ http *http.Client }

// NewClient talks to the daemon whose run folder is dir.
func NewClient(dir string) *Client {
	path := filepath.Join(dir, SocketName)
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
			if err != nil {
				return nil, fmt.Errorf("reaching the node daemon at %s: %w (is `c8s node` running, and are you root?)", path, err)
			}
			return conn, nil
		},
	}}}
}

func (c *Client) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://c8s"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return nil, wrapped.Err // without the made-up URL
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("asking the node daemon: %s: %s", resp.Status, bytes.TrimSpace(why))
	}
	return resp, nil
}

// Status fetches the daemon's state.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	resp, err := c.get(ctx, "/v1/status")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var s Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return nil, fmt.Errorf("reading the daemon's status: %w", err)
	}
	return &s, nil
}

// FlowQuery says which flow records to fetch.
type FlowQuery struct {
	flow.Filter
	Last   int  // how many past records, at most MaxFlowHistory
	Follow bool // go on with new ones until the context ends
}

// Flows calls fn with the records that fit q, until there are no more or fn
// returns an error.
func (c *Client) Flows(ctx context.Context, q FlowQuery, fn func(flow.Record) error) error {
	v := q.Values()
	v.Set("n", strconv.Itoa(q.Last))
	if q.Follow {
		v.Set("follow", "1")
	}
	path := "/v1/flows?" + v.Encode()
	resp, err := c.get(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for dec.More() {
		var rec flow.Record
		if err := dec.Decode(&rec); err != nil {
			return fmt.Errorf("reading flow records: %w", err)
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}
