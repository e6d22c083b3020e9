// SPDX-License-Identifier: Apache-2.0

package clientcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/client"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

// proxyGrace is how long what is under way may take once the proxy ends.
const proxyGrace = 10 * time.Second

type proxyCommand struct {
	trust  trust
	listen string
	to     string
	tcp    []string
	port   uint16
	remote bool
}

func newProxy() *cobra.Command {
	var v proxyCommand
	c := &cobra.Command{
		Use:   "proxy (--listen ADDR --to URL | --tcp ADDR=HOST:PORT)… (--operators FILE | --cds-policy FILE)",
		Short: "Let any program on this machine talk to a host that has proven itself",
		Long: `Listens on this machine, and carries what comes to an attested service. Programs need
not know: point their base URL at --listen, or their database address at --tcp. Every
connection to the service is proven before a byte is carried; one that carries
requests again while it lives, one of --tcp when it is made.

With --to, requests get the service's Host; streams and WebSockets pass. With --tcp,
bytes pass as they are, through the ingress of HOST. ADDR is host:port, or unix:PATH
for a socket that only this user may open. Others than this machine's addresses are
refused unless --allow-remote: whoever reaches ADDR uses the service as you.

` + trustHelp + `

Exit codes: 0 ended by a signal, 1 the service did not prove itself at the start or a
listener failed, 2 wrong usage.`,
		Example: `  c8s proxy --listen 127.0.0.1:8080 --to https://llm.example --operators operators.json
  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 python app.py

  c8s proxy --tcp 127.0.0.1:5432=db.example:5432 --operators operators.json
  psql -h 127.0.0.1 bank

  c8s proxy --listen unix:/run/user/1000/bank.sock --to https://bank.example --operators operators.json`,
		Args: desk.NoArgs,
		RunE: withEnvironment(func(c *cobra.Command, _ []string) error { return v.run(c) }),
	}
	v.trust.registerUse(c)
	f := c.Flags()
	f.StringVar(&v.listen, "listen", "", "address to listen on for HTTP: host:port or unix:PATH")
	f.StringVar(&v.to, "to", "", "https URL of the service behind --listen")
	f.StringArrayVar(&v.tcp, "tcp", nil, "address to listen on and TCP service behind it, ADDR=HOST:PORT (repeatable)")
	f.Uint16Var(&v.port, "ingress-port", 443, "port of the ingress, for --tcp")
	f.BoolVar(&v.remote, "allow-remote", false, "listen also on addresses that others can reach")
	for _, name := range []string{"listen", "to", "tcp", "ingress-port"} {
		_ = c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	c.SetFlagErrorFunc(desk.FlagError)
	return c
}

// door is one place where the proxy listens.
type door struct {
	addr   string
	target string   // of TCP
	to     *url.URL // of HTTP; nil for TCP
	ln     net.Listener
}

func (v *proxyCommand) doors() ([]*door, error) {
	var doors []*door
	if (v.listen == "") != (v.to == "") {
		return nil, usage("--listen and --to go together")
	}
	if v.to != "" {
		to, err := url.Parse(v.to)
		if err != nil || to.Scheme != "https" || to.Host == "" || to.User != nil || to.RawQuery != "" || to.Fragment != "" {
			return nil, usage("--to %q: it must be an https URL without user, query and fragment", v.to)
		}
		doors = append(doors, &door{addr: v.listen, to: to})
	}
	for _, pair := range v.tcp {
		addr, target, ok := strings.Cut(pair, "=")
		if _, _, err := net.SplitHostPort(target); !ok || err != nil {
			return nil, usage("--tcp %q: it must be ADDR=HOST:PORT", pair)
		}
		doors = append(doors, &door{addr: addr, target: target})
	}
	if len(doors) == 0 {
		return nil, usage("nothing to do: give --listen and --to, or --tcp")
	}
	for _, d := range doors {
		if err := v.local(d.addr); err != nil {
			return nil, err
		}
	}
	return doors, nil
}

// local refuses addresses that others can reach.
func (v *proxyCommand) local(addr string) error {
	if strings.HasPrefix(addr, "unix:") {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usage("the address %q: %w", addr, err)
	}
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) && !v.remote {
		return usage("%s can be reached by others, who would use the service as you: listen on 127.0.0.1, or give --allow-remote", addr)
	}
	return nil
}

func (v *proxyCommand) run(c *cobra.Command) error {
	doors, err := v.doors()
	if err != nil {
		return err
	}
	cl, err := v.trust.client(c, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, d := range doors {
		if err := v.prove(c.Context(), cl, d); err != nil {
			return plain(err)
		}
	}
	defer func() {
		for _, d := range doors {
			if d.ln != nil {
				d.ln.Close()
			}
		}
	}()
	for _, d := range doors {
		if d.ln, err = listen(c.Context(), d.addr); err != nil {
			return fmt.Errorf("listening on %s: %w", d.addr, err)
		}
		if _, err := fmt.Fprintf(c.ErrOrStderr(), "listening on %s for %s\n", d.where(), d); err != nil {
			return err
		}
	}
	return v.serve(c, cl, doors)
}

// prove has the service prove itself before anybody is let in.
func (v *proxyCommand) prove(ctx context.Context, cl *client.Client, d *door) error {
	_, err := cl.Prove(ctx, d.ingress(v.port))
	return err
}

// ingress is where the door leads.
func (d *door) ingress(port uint16) string {
	if d.to != nil {
		return d.to.Host
	}
	host, _, _ := net.SplitHostPort(d.target) // it was checked
	return net.JoinHostPort(host, fmt.Sprint(port))
}

func (d *door) String() string {
	if d.to != nil {
		return d.to.String()
	}
	return d.target
}

// where is what programs use: with the port that the system chose.
func (d *door) where() string {
	if strings.HasPrefix(d.addr, "unix:") {
		return d.addr
	}
	if d.to != nil {
		return "http://" + d.ln.Addr().String()
	}
	return d.ln.Addr().String()
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	if file, ok := strings.CutPrefix(addr, "unix:"); ok {
		return listenUnix(file)
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
}

// serve runs until the context ends, or a listener fails.
func (v *proxyCommand) serve(c *cobra.Command, cl *client.Client, doors []*door) error {
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	var all sync.WaitGroup
	errs := make(chan error, len(doors))
	for _, d := range doors {
		all.Go(func() {
			defer cancel()
			if d.to != nil {
				errs <- v.serveHTTP(ctx, d, cl, c.ErrOrStderr())
			} else {
				errs <- v.serveTCP(ctx, d, cl, c.ErrOrStderr())
			}
		})
	}
	all.Wait()
	var err error
	for range doors {
		err = errors.Join(err, <-errs)
	}
	return err
}

func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, "c8s proxy: "+format+"\n", args...) // for people: nothing depends on it
}
