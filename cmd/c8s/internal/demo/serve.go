// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

// newServe is the ordinary web server of the demo's "web" pod. It knows
// nothing of C8s: plain HTTP, on every address it has.
func newServe() *cobra.Command {
	var addr, body string
	c := &cobra.Command{
		Use:    "serve",
		Short:  "A plain HTTP server for the demo's pods",
		Hidden: true,
		Args:   desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ln, err := (&net.ListenConfig{}).Listen(c.Context(), "tcp", addr)
			if err != nil {
				return err
			}
			srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "%s\nYou are %s\n", body, r.RemoteAddr)
			})}
			stop := context.AfterFunc(c.Context(), func() { srv.Close() })
			defer stop()
			if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
	}
	c.Flags().StringVar(&addr, "listen", ":8080", "address to listen on")
	c.Flags().StringVar(&body, "body", "hello", "what to answer")
	return c
}
