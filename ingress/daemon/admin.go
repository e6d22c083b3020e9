// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/c8s-dev/c8s/internal/unixsock"
)

// SocketName is the admin socket's file name inside the run folder.
const SocketName = "ingress.sock"

// serveAdmin answers `c8s ingress status` until ctx ends. Nothing can be changed
// through the socket, and only root may open it.
func (d *Daemon) serveAdmin(ctx context.Context, dir string) error {
	ln, err := unixsock.Listen(dir, SocketName, "unix")
	if err != nil {
		return fmt.Errorf("opening the admin socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.Status()) // whoever left needs no status
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

// AskStatus asks the ingress whose run folder is dir.
func AskStatus(ctx context.Context, dir string) (*Status, error) {
	path := filepath.Join(dir, SocketName)
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, fmt.Errorf("reaching the ingress at %s: %w (is `c8s ingress` running, and are you root?)", path, err)
		}
		return conn, nil
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://c8s/v1/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return nil, wrapped.Err // without the made-up URL
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("asking the ingress: %s: %s", resp.Status, why)
	}
	var s Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return nil, fmt.Errorf("reading the ingress's status: %w", err)
	}
	return &s, nil
}
