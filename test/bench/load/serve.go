// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Handler serves one connection. Serve closes the connection afterwards.
type Handler func(net.Conn) error

// Serve accepts connections on ln until ctx ends, then closes them and the
// listener and waits for the handlers. It returns nil when ctx ended it.
func Serve(ctx context.Context, ln net.Listener, handle Handler) error {
	var (
		mu   sync.Mutex
		live = make(map[net.Conn]struct{})
		wg   sync.WaitGroup
	)
	stop := context.AfterFunc(ctx, func() {
		ln.Close()
		mu.Lock()
		defer mu.Unlock()
		for c := range live {
			c.Close()
		}
	})
	defer func() {
		stop()
		ln.Close()
		mu.Lock()
		for c := range live {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	}()
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting connections under load: %w", err)
		}
		mu.Lock()
		if ctx.Err() != nil {
			c.Close()
		}
		live[c] = struct{}{}
		mu.Unlock()
		wg.Go(func() {
			defer func() {
				c.Close()
				mu.Lock()
				delete(live, c)
				mu.Unlock()
			}()
			// The client sees the failure as a reset or a short answer and
			// counts it; there is nobody else to tell.
			_ = handle(c)
		})
	}
}

// Sink reads to the end of the stream and answers with the number of bytes it
// received, as 8 bytes in network order. For Bulk.
func Sink(c net.Conn) error {
	// io.Copy would let the kernel throw the bytes away without a copy to
	// user space, which no real receiver does.
	buf := make([]byte, 256<<10)
	var total uint64
	for {
		n, err := c.Read(buf)
		total += uint64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	_, err := c.Write(binary.BigEndian.AppendUint64(nil, total))
	return err
}

// Once echoes one byte and closes. For Connections: the side that closes first
// keeps the port for a minute (TIME_WAIT); on the client that would exhaust
// its ports within seconds.
func Once(c net.Conn) error {
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	_, err := c.Write(b[:])
	return err
}

// Echo returns every byte until the end of the stream. For Idle.
func Echo(c net.Conn) error {
	// Small on purpose: idle connections must not weigh the server down.
	buf := make([]byte, 512)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Respond answers every MessageSize bytes with as many, in order; requests may
// be pipelined. For ClosedLoop and OpenLoop.
func Respond(c net.Conn) error {
	buf := make([]byte, MessageSize)
	for {
		if _, err := io.ReadFull(c, buf); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if _, err := c.Write(buf); err != nil {
			return err
		}
	}
}
