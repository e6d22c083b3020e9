// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/teeflag"
)

// machineFlags are the flags of daemons that make their machine a member of the
// mesh: c8s node and c8s ingress.
type machineFlags struct {
	log      logFlags
	tee      teeflag.Flags
	trust    trustFlags
	places   routesFlags
	address  string
	cds      []string
	stateDir string
	runDir   string
	metrics  string
	drain    time.Duration

	addressFlag string // the name of the flag of the address
}

// register adds the flags, of which some differ in name and defaults.
func (m *machineFlags) register(c *cobra.Command, addressFlag, stateDir, metrics string) {
	m.log.register(c)
	m.tee.Register(c)
	m.trust.register(c)
	m.places.register(c)
	m.addressFlag = addressFlag
	f := c.Flags()
	f.StringVar(&m.address, addressFlag, "", "address at which nodes reach this machine (required)")
	f.StringSliceVar(&m.cds, "cds", nil, "address and port of each replica of the CDS (required, repeatable)")
	f.StringVar(&m.stateDir, "state-dir", stateDir, "folder for what must be neither lost nor older after a restart: manifest, deny list, the log's checkpoint")
	registerRunDir(c, &m.runDir)
	registerMetrics(c, &m.metrics, metrics)
	f.DurationVar(&m.drain, "drain", time.Minute, "how long what is established may go on when the daemon ends")
	completeFolder(c, "state-dir")
}

// check finds what is wrong with the flags before anything is opened.
func (m *machineFlags) check() (own netip.Addr, err error) {
	for _, need := range [][2]string{{m.addressFlag, m.address}, {"cds", strings.Join(m.cds, ",")}} {
		if err := requireFlag(need[0], need[1]); err != nil {
			return own, err
		}
	}
	if own, err = netip.ParseAddr(m.address); err != nil {
		return own, exit.Usage(fmt.Errorf("--%s is %q, want an IP address, without a port", m.addressFlag, m.address))
	}
	if !own.IsGlobalUnicast() {
		return own, exit.Usage(fmt.Errorf("--%s is %s, want the address at which nodes reach this machine", m.addressFlag, own))
	}
	for _, replica := range m.cds {
		if _, port, err := net.SplitHostPort(replica); err != nil || port == "" {
			return own, exit.Usage(fmt.Errorf("--cds has %q, want address and port such as 10.80.0.100:15009", replica))
		}
	}
	if m.drain <= 0 {
		return own, exit.Usage(fmt.Errorf("--drain is %s, must be positive", m.drain))
	}
	if _, err := portOf(m.metrics); err != nil {
		return own, exit.Usage(fmt.Errorf("--metrics-address: %w", err))
	}
	return own, m.places.check()
}

// attester opens the TEE, in the name of the machine if that is a simulated one
// without a name of its own.
func (m *machineFlags) attester(ctx context.Context, name string, t *trust, log *slog.Logger) (attest.Attester, bool, error) {
	if m.tee.Machine == "" {
		m.tee.Machine = name
	}
	return m.tee.Attester(ctx, t.operators, log)
}

// client finds the CDS, and what this machine has kept of the operators' word.
func (m *machineFlags) client(t *trust, log *slog.Logger) (*client.Client, error) {
	return client.New(client.Config{
		Addrs: m.cds, Operators: t.operators, Manifest: t.manifest, StateDir: m.stateDir, Now: time.Now, Log: log,
	})
}
