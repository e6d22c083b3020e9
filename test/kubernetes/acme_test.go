// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/c8s-dev/c8s/ingress/certs/pebbletest"
	"github.com/c8s-dev/c8s/test/stack"
)

// caConfigMap has the CA that the ACME server's own certificate is of.
const caConfigMap = "acme-ca"

// startCA runs an ACME CA on the node of the ingress, where every name leads to
// the ingress for it, and has the chart use it.
func (s *Site) startCA(t testing.TB, n *stack.Node) {
	t.Helper()
	ca := pebbletest.Start(t, pebbletest.Options{In: place{n}, HTTPPort: 80, TLSPort: 443})
	s.webRoots = x509.NewCertPool()
	s.webRoots.AppendCertsFromPEM(ca.Issuer)
	must(t, os.WriteFile(s.path("web-roots.pem"), ca.Issuer, 0o600))
	must(t, os.WriteFile(s.path("ca.pem"), ca.Roots, 0o600))
	for _, args := range [][]string{
		{"create", "namespace", systemNamespace},
		{"create", "configmap", caConfigMap, "-n", systemNamespace, "--from-file", s.path("ca.pem")},
	} {
		_, err := s.Kubectl(t.Context(), args...)
		must(t, err)
	}
	s.settings = append(s.settings, "--set", "ingress.acme.directory="+ca.Directory, "--set", "ingress.acme.caConfigMap="+caConfigMap)
}

// place is a node as a place for a server.
type place struct{ *stack.Node }

func (p place) Listen(network, addr string) (net.Listener, error) {
	return p.Node.Listen(context.Background(), network, addr)
}

func (p place) ListenPacket(network, addr string) (net.PacketConn, error) {
	return p.Node.ListenPacket(context.Background(), network, addr)
}

// Start runs the program by the one that enters the node. It becomes it, so it
// can be waited for and killed.
func (p place) Start(cmd *exec.Cmd) error {
	enter := p.Command(context.Background(), append([]string{cmd.Path}, cmd.Args[1:]...)...)
	cmd.Path, cmd.Args, cmd.Dir, cmd.SysProcAttr = enter.Path, enter.Args, enter.Dir, enter.SysProcAttr
	return cmd.Start()
}
