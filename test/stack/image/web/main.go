// SPDX-License-Identifier: Apache-2.0

// Command web is a web service as pods run it: an application on port 8080, and
// gRPC's interop server on port 9090, both without TLS.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/c8s-dev/c8s/test/web"
)

func main() {
	name := flag.String("name", "web", "who it is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, *name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve answers until it is told to end.
func serve(ctx context.Context, name string) error {
	rpcs, err := net.Listen("tcp", ":9090")
	if err != nil {
		return err
	}
	app := &http.Server{Addr: ":8080", Handler: web.App(name), ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 2)
	go func() { ended <- web.GRPC().Serve(rpcs) }()
	go func() { ended <- app.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}
