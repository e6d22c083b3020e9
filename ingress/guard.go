// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/client/receipt"
)

// guard ends a request whose client does not send its body, or does not take
// the answer. It looks at reads and writes that are waiting, so that a slow
// backend is not mistaken for a slow client, and costs two stores for each of
// them. Once there is an answer, or where gRPC streams both ways, a client may
// be silent for as long as it likes.
type guard struct {
	limit  time.Duration
	w      http.ResponseWriter
	cancel context.CancelCauseFunc
	epoch  time.Time

	reading, writing atomic.Int64 // since when, in ns after epoch; 0: not
	answering        atomic.Bool

	mu    sync.Mutex
	timer *time.Timer // nil: stopped
}

func newGuard(limit time.Duration, w http.ResponseWriter, cancel context.CancelCauseFunc) *guard {
	g := &guard{limit: limit, w: w, cancel: cancel, epoch: time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = time.AfterFunc(limit, g.look)
	return g
}

func (g *guard) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer.Stop()
	g.timer = nil
}

func (g *guard) now() int64 { return max(1, int64(time.Since(g.epoch))) }

func (g *guard) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer == nil {
		return
	}
	oldest := g.reading.Load()
	if g.answering.Load() {
		oldest = 0
	}
	if w := g.writing.Load(); w != 0 && (oldest == 0 || w < oldest) {
		oldest = w
	}
	left := g.limit
	if oldest != 0 {
		left -= time.Duration(g.now() - oldest)
	}
	if left > 0 {
		g.timer.Reset(left)
		return
	}
	g.cancel(fail(http.StatusRequestTimeout, codeStalled, nil))
	// The write side gets a moment for the answer; the read side none.
	c, now := http.NewResponseController(g.w), time.Now()
	_ = c.SetReadDeadline(now)
	if g.writing.Load() != 0 {
		_ = c.SetWriteDeadline(now)
	} else {
		_ = c.SetWriteDeadline(now.Add(time.Second))
	}
}

var errBodyTooLarge = errors.New("the request's body is larger than allowed")

// reader is a request's body.
type reader struct {
	io.ReadCloser
	left    int64
	over    atomic.Bool
	broke   atomic.Bool // the client did not send it to its end
	guard   *guard
	patient bool        // the client may be silent
	trailer http.Header // filled at the end
}

func (r *reader) Read(p []byte) (int, error) {
	if !r.patient {
		r.guard.reading.Store(r.guard.now())
	}
	n, err := r.ReadCloser.Read(p)
	r.guard.reading.Store(0)
	if r.left -= int64(n); r.left < 0 {
		r.over.Store(true)
		return 0, errBodyTooLarge
	}
	switch {
	case err == io.EOF:
		onlyOthers(r.trailer)
	case err != nil:
		r.broke.Store(true)
	}
	return n, err
}

// spoilt reports whether it is the body that a request failed at.
func (r *reader) spoilt() bool { return r != nil && (r.over.Load() || r.broke.Load()) }

// writer is where the answer goes.
type writer struct {
	http.ResponseWriter
	guard    *guard
	status   int
	bytes    int64
	hijacked bool
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	if status >= 200 {
		w.status = status
		w.guard.answering.Store(true)
	} else {
		receipt.Remove(w.Header()) // what a backend says there
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
		w.guard.answering.Store(true)
	}
	w.guard.writing.Store(w.guard.now())
	n, err := w.ResponseWriter.Write(p)
	w.guard.writing.Store(0)
	w.bytes += int64(n)
	return n, err
}

// FlushError is for http.ResponseController: what waits in a flush is a write.
func (w *writer) FlushError() error {
	w.guard.writing.Store(w.guard.now())
	defer w.guard.writing.Store(0)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// Hijack implements http.Hijacker.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked, w.status = true, http.StatusSwitchingProtocols
	}
	return conn, buf, err
}
