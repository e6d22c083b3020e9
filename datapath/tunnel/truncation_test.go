// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"io"
	"testing"
)

// The write to an application that has reset its connection takes the error,
// and the read sees an end.
func TestResetWhileDataArrivesIsNoOrderlyEnd(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		for range 100 {
			near, done := r.connect(t)
			far := r.farEnd(t)
			go func() {
				chunk := make([]byte, 64<<10)
				for {
					if _, err := far.Write(chunk); err != nil {
						return
					}
				}
			}()
			_, _ = io.ReadFull(near, make([]byte, 100<<10))
			_ = near.SetLinger(0)
			_ = near.Close()
			await(t, done)
			await(t, r.farResult)
			r.acceptor.mu.Lock()
			fin := r.acceptor.state.gotFin
			r.acceptor.mu.Unlock()
			if fin {
				t.Fatal("the other side was told an orderly end")
			}
		}
	})
}
