// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Get is a request of HTTP and what its answer must be: status 200 with a body
// of Size bytes. It is written and read by hand, because a client of net/http
// costs more than the proxies that it would measure.
type Get struct {
	Host, Path string
	Size       int64
	Last       bool // the connection ends with the answer; HTTP/1.1 only
}

// HTTP1 prepares a connection for HTTP/1.1.
func (g Get) HTTP1(c net.Conn) (Exchange, error) {
	h := g.http1(c)
	return h.exchange, nil
}

func (g Get) http1(c net.Conn) *http1 {
	h := &http1{Get: g, conn: c, r: bufio.NewReaderSize(c, 64<<10)}
	h.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n", g.Path, g.Host)
	if g.Last {
		h.request = append(h.request, "Connection: close\r\n"...)
	}
	h.request = append(h.request, "\r\n"...)
	return h
}

// http1 is a client's connection.
type http1 struct {
	Get
	conn    net.Conn
	r       *bufio.Reader
	request []byte
	first   time.Time // the first byte of a body's chunk came
}

func (h *http1) exchange() error {
	if _, err := h.conn.Write(h.request); err != nil {
		return err
	}
	length, err := h.header()
	if err != nil {
		return err
	}
	got := length
	if length < 0 {
		got, err = h.chunks()
	} else {
		err = h.skip(length)
	}
	if err == nil && got != h.Size {
		err = fmt.Errorf("the answer has %d bytes, want %d", got, h.Size)
	}
	if err == nil && h.Last {
		err = h.end()
	}
	return err
}

// header reads up to the body and returns its length, -1: it comes in chunks.
func (h *http1) header() (length int64, err error) {
	length = -1
	for n := 0; ; n++ {
		line, err := h.line()
		switch {
		case err != nil:
			return 0, fmt.Errorf("reading an answer's header: %w", err)
		case n == 0 && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			return 0, fmt.Errorf("the answer is %q", line)
		case len(line) == 0:
			return length, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil || length < 0 {
				return 0, fmt.Errorf("the answer's length is %q", value)
			}
		}
	}
}

func (h *http1) line() ([]byte, error) {
	line, err := h.r.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}

func (h *http1) skip(n int64) error {
	for n > 0 {
		m, err := h.r.Discard(int(min(n, 1<<20)))
		if n -= int64(m); err != nil {
			return fmt.Errorf("reading an answer's body: %w", err)
		}
	}
	return nil
}

func (h *http1) chunks() (total int64, err error) {
	h.first = time.Time{}
	for {
		line, err := h.line()
		if err != nil {
			return total, fmt.Errorf("reading a chunk: %w", err)
		}
		n, err := strconv.ParseInt(string(line), 16, 64)
		if err != nil || n < 0 {
			return total, fmt.Errorf("a chunk's length is %q", line)
		}
		if n > 0 && h.first.IsZero() {
			if _, err := h.r.Peek(1); err == nil {
				h.first = time.Now()
			}
		}
		if err := h.skip(n); err != nil {
			return total, err
		}
		if line, err = h.line(); err != nil || len(line) > 0 {
			return total, fmt.Errorf("a chunk ends with %q: %w", line, err)
		}
		if total += n; n == 0 {
			return total, nil
		}
	}
}

func (h *http1) end() error {
	if _, err := h.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the connection goes on after its last answer: %w", err)
	}
	return nil
}

// FirstByte asks for a stream one time after the other over one kept-alive
// connection of HTTP/1.1, for duration d, and returns how long the first byte
// of its body took; streams must come in chunks and end by themselves.
func FirstByte(ctx context.Context, dial Dial, g Get, d time.Duration) (Latencies, error) {
	c, err := dial(ctx)
	if err != nil {
		return Latencies{}, fmt.Errorf("measuring the first byte of a stream: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	h := g.http1(c)
	var took []time.Duration
	for until := time.Now().Add(d); time.Now().Before(until); {
		err := c.SetDeadline(time.Now().Add(grace))
		start := time.Now()
		if err == nil {
			err = h.exchange()
		}
		if err == nil && h.first.IsZero() {
			err = errors.New("the answer is no stream")
		}
		if err != nil {
			return Latencies{}, fmt.Errorf("measuring the first byte of a stream: %w", preferCause(ctx, err))
		}
		took = append(took, h.first.Sub(start))
	}
	return newLatencies(took[min(1, len(took)):]), nil // the first finds nothing warm
}
