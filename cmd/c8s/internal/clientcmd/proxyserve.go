// SPDX-License-Identifier: Apache-2.0

package clientcmd

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/client"
	"github.com/c8s-dev/c8s/internal/unixsock"
)

// headerTime bounds how long a program may take for a request's header.
const headerTime = 10 * time.Second

func listenUnix(file string) (net.Listener, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	return unixsock.Listen(filepath.Dir(file), filepath.Base(file), "unix")
}

// serveHTTP carries requests until ctx ends, and then those under way.
func (v *proxyCommand) serveHTTP(ctx context.Context, d *door, cl *client.Client, out io.Writer) error {
	server := &http.Server{
		Handler: v.ownHosts(d, reverse(d.to, cl.Transport(), out)), ReadHeaderTimeout: headerTime,
		ErrorLog: log.New(io.Discard, "", 0), // programs that hang up are no news
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(d.ln) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), proxyGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ownHosts refuses requests that a web page made to somebody else's name which
// now points here (DNS rebinding): it would use the service as this user.
func (v *proxyCommand) ownHosts(d *door, next http.Handler) http.Handler {
	listen, _, err := net.SplitHostPort(d.addr)
	if err != nil || v.remote { // a unix socket, which no web page reaches; or open to all anyway
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := (&url.URL{Host: r.Host}).Hostname()
		ip := net.ParseIP(host)
		if ip == nil && !strings.EqualFold(host, "localhost") && !strings.EqualFold(host, listen) {
			http.Error(w, "c8s proxy: this is no proxy for "+r.Host+": use the address it listens on", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// reverse sends requests to the service as its own.
func reverse(to *url.URL, transport http.RoundTripper, out io.Writer) http.Handler {
	return &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = to.Host
		},
		ModifyResponse: func(resp *http.Response) error {
			// A redirection to the service itself must not lead around the proxy.
			if l, err := url.Parse(resp.Header.Get("Location")); err == nil && strings.EqualFold(l.Host, to.Host) {
				l.Scheme, l.Host = "", ""
				resp.Header.Set("Location", l.String())
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				say(out, "%s %s: %s", r.Method, clean(r.URL.Path), clean(err.Error()))
			}
			var refused *client.Refusal
			if errors.As(err, &refused) {
				http.Error(w, "c8s proxy: nothing was sent: "+clean(refused.Error()), http.StatusBadGateway)
				return
			}
			http.Error(w, "c8s proxy: the service does not answer", http.StatusBadGateway)
		},
	}
}

// serveTCP carries connections until ctx ends, and gives those under way some
// time then.
func (v *proxyCommand) serveTCP(ctx context.Context, d *door, cl *client.Client, out io.Writer) error {
	stop := context.AfterFunc(ctx, func() { d.ln.Close() })
	defer stop()
	carrying, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	context.AfterFunc(ctx, func() {
		grace := time.AfterFunc(proxyGrace, end)
		context.AfterFunc(carrying, func() { grace.Stop() })
	})
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := d.ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		all.Go(func() {
			if err := v.carry(carrying, conn, d, cl); err != nil {
				say(out, "%s: %s", d.target, clean(err.Error()))
			}
		})
	}
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// carry joins one connection with the service.
func (v *proxyCommand) carry(ctx context.Context, conn net.Conn, d *door, cl *client.Client) error {
	defer conn.Close()
	service, err := cl.DialTCPVia(ctx, d.ingress(v.port), d.target)
	if err != nil {
		return err
	}
	defer service.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close(); service.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pour(service.(halfCloser), conn.(halfCloser)) })
	both.Go(func() { pour(conn.(halfCloser), service.(halfCloser)) })
	both.Wait()
	return nil
}

// pour copies until one side ends. An end is passed on as an end, a break as a
// break of both.
func pour(to, from halfCloser) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		to.Close()
		from.Close()
	}
}
