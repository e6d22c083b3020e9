// SPDX-License-Identifier: Apache-2.0

// Package web is both ends of a web service under test: an application as
// people put behind an ingress, and clients that look at it from outside.
//
// Invariant: neither knows C8s. The application speaks plain HTTP, WebSocket and
// gRPC, and clients verify the web's own certificates; so what passes between
// them passes for anybody's.
package web

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// App is an application. It says who it is and who asked, hashes what is sent to
// /upload, sends events from /events without an end, and echoes the WebSocket
// messages of /ws.
func App(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for %s at %s, from %s by %s\n", name, r.Host, r.URL.Path, r.Header.Get("X-Forwarded-For"), r.RemoteAddr)
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %x %v", n, sum.Sum(nil), err)
	})
	mux.HandleFunc("/events", events)
	mux.Handle("/ws", websocket.Server{Handler: func(c *websocket.Conn) { _, _ = io.Copy(c, c) }})
	return mux
}

// events sends one every ten milliseconds for as long as somebody listens.
func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		fmt.Fprintf(w, "data: %d\n\n", i)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// GRPC is the server with which gRPC's implementations are checked against each
// other.
func GRPC() *grpc.Server {
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	return server
}
