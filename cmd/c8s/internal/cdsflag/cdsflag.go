// SPDX-License-Identifier: Apache-2.0

// Package cdsflag gives every command that talks to a CDS the same flags, and
// no way to talk to one that has not proven itself: the operators are the trust
// anchor, and a manifest they signed says what a CDS must be.
package cdsflag

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// Port is where a CDS listens unless told otherwise.
const Port = "15009"

// Help says in a command's help what the flags mean.
const Help = `The CDS proves itself before a byte is sent: its evidence must satisfy --manifest,
a manifest that --operators signed, and say that it was launched for them. An
older manifest will do for as long as it still accepts the CDS; later ones are
followed step by step.`

// Flags name a CDS and what it must prove.
type Flags struct {
	addrs []string
	Trust
}

// Trust names what a CDS must prove.
type Trust struct {
	Anchor
	manifest string
}

// Anchor is the flag that names the operators.
type Anchor struct{ operators string }

// Register adds the flags to c.
func (f *Flags) Register(c *cobra.Command) {
	f.RegisterBeside(c)
	f.Anchor.Register(c)
}

// RegisterBeside adds the flags to a command that has its own for operators.
func (f *Flags) RegisterBeside(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.addrs, "cds", nil, "address of the CDS, port "+Port+" unless given; any of several will do (repeatable)")
	_ = c.RegisterFlagCompletionFunc("cds", cobra.NoFileCompletions) // fails for a flag that is not there
	f.registerManifest(c)
}

// Register adds the flags to c.
func (t *Trust) Register(c *cobra.Command) {
	t.Anchor.Register(c)
	t.registerManifest(c)
}

// Register adds the flag to c.
func (t *Anchor) Register(c *cobra.Command) {
	c.Flags().StringVar(&t.operators, "operators", "", "operators' file, as 'c8s manifest init' writes it: the trust anchor")
	_ = c.MarkFlagFilename("operators", "json")
}

func (t *Trust) registerManifest(c *cobra.Command) {
	c.Flags().StringVar(&t.manifest, "manifest", "", "manifest signed by the operators, to verify the CDS under")
	_ = c.MarkFlagFilename("manifest", "json")
}

// Given reports whether a CDS is named.
func (f *Flags) Given() bool { return len(f.addrs) > 0 }

// Addrs are the addresses, each with a port.
func (f *Flags) Addrs() []string {
	addrs := make([]string, len(f.addrs))
	for i, addr := range f.addrs {
		addrs[i] = Address(addr)
	}
	return addrs
}

// Client returns a client for the CDS, which keeps what it must remember in
// the state folder if one is named.
func (f *Flags) Client(c *cobra.Command, state string) (*client.Client, error) {
	operators, err := f.Operators()
	if err != nil {
		return nil, err
	}
	cl, _, err := f.ClientOf(c, operators, state)
	return cl, err
}

// ClientOf is Client for operators that were read already. It returns the
// manifest too that the CDS is verified under.
func (f *Flags) ClientOf(c *cobra.Command, operators policy.Operators, state string) (*client.Client, *policy.Signed, error) {
	if !f.Given() {
		return nil, nil, exit.Usage(errors.New("--cds is required: the address of the CDS"))
	}
	signed, err := f.Manifest(operators)
	if err == nil && signed == nil {
		err = exit.Usage(errors.New("--manifest is required: a signed manifest that says what the CDS must be"))
	}
	if err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	cl, err := client.New(client.Config{Addrs: f.Addrs(), Operators: operators, Manifest: signed, StateDir: state, Now: time.Now, Log: log})
	return cl, signed, err
}

// Named reports whether either file is named.
func (t *Trust) Named() bool { return t.operators != "" || t.manifest != "" }

// Named reports whether the file is named.
func (t *Anchor) Named() bool { return t.operators != "" }

// Operators reads the trust anchor.
func (t *Anchor) Operators() (policy.Operators, error) {
	if t.operators == "" {
		return policy.Operators{}, exit.Usage(errors.New("--operators is required: who is trusted to sign"))
	}
	return desk.ReadOperators(t.operators)
}

// Manifest reads the manifest, nil where none is named.
func (t *Trust) Manifest(operators policy.Operators) (*policy.Signed, error) {
	if t.manifest == "" {
		return nil, nil
	}
	raw, err := desk.ReadFile(t.manifest, policy.MaxEnvelope)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	signed, err := policy.Open(raw, operators)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.manifest, err)
	}
	return signed, nil
}

// Address adds the usual port to an address without one.
func Address(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), Port)
}
