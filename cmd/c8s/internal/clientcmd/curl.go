// SPDX-License-Identifier: Apache-2.0

package clientcmd

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/client"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

const maxRedirects = 10

type curlCommand struct {
	trust   trust
	request requestFlags

	include, fail, follow, verbose bool
	http1                          bool
	out, receipt                   string
	force                          bool
	maxTime                        time.Duration
}

func newCurl() *cobra.Command {
	var v curlCommand
	c := &cobra.Command{
		Use:   "curl URL (--operators FILE | --cds-policy FILE)",
		Short: "Send a request to a host, once it has proven itself",
		Long: `Sends an HTTP request as curl does, and prints the body of the answer as it comes.
The host proves itself first, on the very connection that then carries the request;
after a redirection (-L) the next host does. If a step fails, nothing was sent.

` + trustHelp + `

Exit codes: 0 answered, 1 the host did not prove itself or did not answer, or -f and a
status of 400 or more; 2 wrong usage.`,
		Example: `  c8s curl https://bank.example/accounts --operators operators.json
  c8s curl -X POST -H 'Content-Type: application/json' -d @order.json --receipt receipt.json https://bank.example/orders
  c8s curl -N https://bank.example/events
  export C8S_FLAG_OPERATORS=operators.json; c8s curl -I bank.example`,
		Args:              desk.UsageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              withEnvironment(func(c *cobra.Command, args []string) error { return v.run(c, args[0]) }),
	}
	v.trust.registerUse(c)
	v.request.register(c)
	f := c.Flags()
	f.BoolVarP(&v.include, "include", "i", false, "print the answer's status and fields before its body")
	f.BoolVarP(&v.fail, "fail", "f", false, "fail without a body for a status of 400 or more")
	f.BoolVarP(&v.follow, "location", "L", false, "follow redirections, to hosts that prove themselves too")
	f.BoolVarP(&v.verbose, "verbose", "v", false, "say on standard error what the host proved")
	f.BoolP("no-buffer", "N", false, "accepted for curl's sake: nothing is ever buffered")
	f.BoolP("silent", "s", false, "accepted for curl's sake: no progress is ever shown")
	f.BoolP("show-error", "S", false, "accepted for curl's sake: errors are always shown")
	f.BoolVar(&v.http1, "http1.1", false, "speak HTTP/1.1")
	f.StringVarP(&v.out, "out", "o", desk.Stdio, "file for the body, or - for standard output")
	f.StringVar(&v.receipt, "receipt", "", "ask for a signed answer, verify it and keep the receipt in this file")
	f.BoolVar(&v.force, "force", false, "replace files that exist")
	f.DurationVar(&v.maxTime, "max-time", 0, "limit for everything; none unless given")
	c.SetFlagErrorFunc(desk.FlagError)
	return c
}

func (v *curlCommand) run(c *cobra.Command, address string) error {
	if v.maxTime < 0 {
		return usage("--max-time is %s, must be positive", v.maxTime)
	}
	for _, file := range []string{v.out, v.receipt} {
		if file == "" || file == desk.Stdio {
			continue
		}
		if err := desk.CheckFree(v.force, file); err != nil {
			return err
		}
	}
	req, err := v.request.build(c, address)
	if err != nil {
		return err
	}
	cl, err := v.trust.client(c, func(cfg *client.Config) { cfg.Receipts, cfg.OnlyHTTP1 = v.receipt != "", v.http1 })
	if err != nil {
		return err
	}
	defer cl.Close()
	h := &http.Client{Transport: cl.Transport(), Timeout: v.maxTime, CheckRedirect: v.redirect}
	resp, err := h.Do(req)
	if err != nil {
		return plain(err)
	}
	defer resp.Body.Close()
	if v.verbose {
		if r := client.ReportOf(resp); r != nil {
			if err := printReport(c.ErrOrStderr(), r); err != nil {
				return err
			}
		}
	}
	if v.receipt != "" {
		if err := v.keep(resp); err != nil {
			return err
		}
	}
	if v.fail && resp.StatusCode >= 400 {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	return v.print(c, resp)
}

func (v *curlCommand) redirect(_ *http.Request, via []*http.Request) error {
	if !v.follow {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirections", maxRedirects)
	}
	return nil
}

// plain takes out net/http's repetition of the URL where a step failed: the
// refusal says it all.
func plain(err error) error {
	var refused *client.Refusal
	if errors.As(err, &refused) && refused.Answered() {
		return fmt.Errorf("%w\nthe request was sent, its answer is not used", refused)
	}
	if refused != nil {
		return fmt.Errorf("%w\nnothing was sent; 'c8s verify %s' shows every step", refused, refused.Report.URL)
	}
	return err
}

func (v *curlCommand) keep(resp *http.Response) error {
	r := client.ReceiptOf(resp)
	if r == nil {
		return errors.New("the answer is not signed: only those of forwarded requests are")
	}
	text, err := r.Encode()
	if err != nil {
		return err
	}
	return desk.WriteFile(v.receipt, append(text, '\n'), desk.ModePublic, v.force)
}

func (v *curlCommand) print(c *cobra.Command, resp *http.Response) (err error) {
	out := c.OutOrStdout()
	if v.out != desk.Stdio {
		flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
		if v.force {
			flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		}
		f, err := os.OpenFile(v.out, flags, desk.ModePublic)
		if err != nil {
			return fmt.Errorf("writing the body: %w", err)
		}
		defer func() {
			if closed := f.Close(); err == nil {
				err = closed
			}
		}()
		out = f
	}
	if v.include || v.request.head {
		if _, err := fmt.Fprintf(out, "%s %s\r\n", resp.Proto, resp.Status); err != nil {
			return err
		}
		if err := errors.Join(resp.Header.Write(out), writeLine(out)); err != nil {
			return err
		}
	}
	if _, err := io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

func writeLine(w io.Writer) error {
	_, err := io.WriteString(w, "\r\n")
	return err
}

func usage(format string, args ...any) error { return exit.Usage(fmt.Errorf(format, args...)) }
