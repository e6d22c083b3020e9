// SPDX-License-Identifier: Apache-2.0

// Package clientcmd is the end user's side of an attested ingress. No command of
// it sends a byte of what the user wants to send before the other end has proven
// itself, and none has a flag that skips the proof.
package clientcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/client"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/envflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// Commands returns "verify", "curl", "proxy" and "receipt".
func Commands() []*cobra.Command {
	return []*cobra.Command{newVerify(), newCurl(), newProxy(), newReceipt()}
}

const trustHelp = `What is trusted is --operators, the public keys of those who sign the manifest; or
--cds-policy, an appraisal policy with the measurements a CDS must have. Everything
else is read from the host itself and verified. Every flag may also come from the
environment: C8S_FLAG_OPERATORS is --operators.

What was seen is kept in --state: an older manifest, deny list or log, or another
CDS, is refused later.`

// withEnvironment runs a command once its flags are complete.
func withEnvironment(run func(c *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if err := errors.Join(envflag.ApplyOwn(c, os.Environ()), desk.CheckGroups(c)); err != nil {
			return err
		}
		return run(c, args)
	}
}

// trust are the flags that say who is trusted, and what may be missing.
type trust struct {
	operators, cdsPolicy string
	state                string
	maxAge, within       time.Duration
	nonce                bool
	caCert               string
	insecureWebPKI       bool
	connect              string
	simulated, unseen    bool
	requireAll           bool
}

func (t *trust) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&t.operators, "operators", "", "operators' file, as 'c8s manifest init' writes it: the trust anchor")
	f.StringVar(&t.cdsPolicy, "cds-policy", "", "appraisal policy that the CDS must satisfy: the trust anchor instead of --operators")
	f.StringVar(&t.state, "state", "", "folder that keeps what was seen (default: c8s/client in $XDG_STATE_HOME or ~/.local/state)")
	f.DurationVar(&t.maxAge, "max-age", 5*time.Minute, "how old the beacon in a proof may be")
	f.DurationVar(&t.within, "connect-timeout", 30*time.Second, "limit for connecting and proving")
	f.BoolVar(&t.nonce, "nonce", false, "have the TEE make evidence for this client alone; rate limited by the ingress")
	f.StringVar(&t.caCert, "cacert", "", "PEM file with the roots of the web PKI, instead of the system's")
	f.BoolVar(&t.insecureWebPKI, "insecure-web-pki", false, "accept any web certificate for the proven key: the proof does not rest on it")
	f.StringVar(&t.connect, "connect", "", "address to connect to, host:port, instead of looking up the URL's host")
	for _, name := range []string{"operators", "cds-policy"} {
		_ = c.MarkFlagFilename(name, "json")
	}
	_ = c.MarkFlagFilename("cacert", "pem", "crt")
	_ = c.MarkFlagDirname("state")
	for _, name := range []string{"max-age", "connect-timeout", "connect"} {
		_ = c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	c.MarkFlagsMutuallyExclusive("operators", "cds-policy")
	c.MarkFlagsMutuallyExclusive("cacert", "insecure-web-pki")
}

// registerUse adds the flags of commands that use what they verify.
func (t *trust) registerUse(c *cobra.Command) {
	t.register(c)
	f := c.Flags()
	f.BoolVar(&t.simulated, "allow-simulated", false, "accept simulated TEEs, which prove nothing: for development")
	f.BoolVar(&t.unseen, "allow-unwitnessed", false, "accept a log that fewer witnesses cosigned than the manifest asks for")
	f.BoolVar(&t.requireAll, "require-all", false, "refuse whatever is not proven, also what the manifest does not ask for")
	c.MarkFlagsMutuallyExclusive("require-all", "allow-simulated")
	c.MarkFlagsMutuallyExclusive("require-all", "allow-unwitnessed")
}

// client makes the client that the flags ask for, after edit.
func (t *trust) client(c *cobra.Command, edit func(*client.Config)) (*client.Client, error) {
	anchor, err := t.anchor()
	if err != nil {
		return nil, err
	}
	cfg := client.Config{
		Anchor: anchor, StateDir: t.state, MaxAge: t.maxAge, Within: t.within, FreshEvidence: t.nonce, InsecureSkipWebPKI: t.insecureWebPKI,
		AllowSimulated: t.simulated, AllowUnwitnessed: t.unseen, RequireAll: t.requireAll,
		Log: slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if t.maxAge <= 0 || t.within <= 0 {
		return nil, exit.Usage(errors.New("--max-age and --connect-timeout must be positive"))
	}
	if !c.Flags().Changed("state") {
		if cfg.StateDir, err = stateDir(); err != nil {
			return nil, err
		}
	}
	if t.caCert != "" {
		if cfg.Roots, err = readRoots(t.caCert); err != nil {
			return nil, err
		}
	}
	if t.connect != "" {
		if _, _, err := net.SplitHostPort(t.connect); err != nil {
			return nil, exit.Usage(fmt.Errorf("--connect %s: %w", t.connect, err))
		}
		cfg.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, t.connect)
		}
	}
	if edit != nil {
		edit(&cfg)
	}
	return client.New(cfg)
}

func (t *trust) anchor() (client.Anchor, error) {
	switch {
	case t.operators != "":
		o, err := desk.ReadOperators(t.operators)
		return client.FromOperators(o), err
	case t.cdsPolicy != "":
		raw, err := desk.ReadFile(t.cdsPolicy, policy.MaxPayload)
		if err != nil {
			return client.Anchor{}, fmt.Errorf("reading the appraisal policy: %w", err)
		}
		p, err := policy.ParseAppraisalPolicy(raw)
		if err != nil {
			return client.Anchor{}, fmt.Errorf("%s: %w", t.cdsPolicy, err)
		}
		return client.FromCDS(p), nil
	}
	return client.Anchor{}, exit.Usage(errors.New("--operators or --cds-policy is required: who is trusted (or C8S_FLAG_OPERATORS in the environment)"))
}

// stateDir is where the state of this user's programs is, by the XDG base
// directory specification.
func stateDir() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", exit.Usage(fmt.Errorf("--state is required: %w", err))
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "c8s", "client"), nil
}
