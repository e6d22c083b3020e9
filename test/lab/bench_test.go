// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

var quiet = slog.New(slog.DiscardHandler)

func BenchmarkBuildTwoNodesAndFourPods(b *testing.B) {
	for b.Loop() {
		l, err := lab.New(b.Context(), lab.Options{Log: quiet, Nodes: []lab.NodeSpec{{Name: "a"}, {Name: "b"}}, Outside: []string{"o"}})
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range l.Nodes() {
			for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
				labtest.Pod(b, n, lab.PodSpec{Name: kind.String(), Kind: kind})
			}
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPlainThroughput is the baseline that the mesh is compared to.
func BenchmarkPlainThroughput(b *testing.B) {
	l := labtest.New(b, lab.Options{Log: quiet, Nodes: []lab.NodeSpec{{Name: "a"}, {Name: "b"}}})
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		from := labtest.Pod(b, l.Node("a"), lab.PodSpec{Name: "from", Kind: kind})
		to := labtest.Pod(b, l.Node("b"), lab.PodSpec{Name: "to", Kind: kind})
		ln, err := to.Listen("tcp", "[::]:80")
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					buf := make([]byte, 1<<20)
					for err == nil {
						_, err = c.Read(buf)
					}
				}()
			}
		}()
		for _, dst := range to.Addrs() {
			b.Run(fmt.Sprintf("%s/%d", kind, dst.BitLen()), func(b *testing.B) {
				c, err := from.Dial(b.Context(), "tcp", netip.AddrPortFrom(dst, 80).String())
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				buf := make([]byte, 1<<20)
				b.SetBytes(int64(len(buf)))
				for b.Loop() {
					if _, err := c.Write(buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
