// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
)

const (
	userHost = "bank.example"
	// userRoutes lead the host to a Service; startIngress and misleadIngress say
	// which pod is behind it.
	userRoutes = `{"schema": "c8s.dev/ingress-routes/v1", "routes": [
  {"name": "bank", "hosts": ["bank.example"], "rules": [{"backends": [{"service": "default/web", "port": 80, "weight": 1}]}]}]}`
)

// ingressRules is what the operators allow clients outside.
func ingressRules() []policy.IngressRule {
	return []policy.IngressRule{{
		Name: "bank", Hosts: []string{userHost},
		Backends: []policy.IngressBackend{{Workload: "web", Mode: policy.ModeHTTP, Ports: []uint16{webPort}}},
	}}
}

// startIngress starts an ingress outside of the nodes. It enrols while the pods
// do; its certificate for browsers is self-signed, which the proof does not mind.
func (s *stage) startIngress() error {
	in, err := s.NewIngress("edge", s.Lab.Outside("edge"), "--self-signed")
	if err == nil {
		err = errors.Join(in.SetRoutes([]byte(userRoutes)), in.Start())
	}
	s.ingress = in
	return err
}

// leadTo says which pod's port is behind the Service of bank.example.
func (s *stage) leadTo(p *cluster.Pod, port uint16) error {
	return s.ingress.SetServices(map[string]map[uint16][]netip.AddrPort{"default/web": {80: {netip.AddrPortFrom(p.Addr4, port)}}})
}

// user is somebody next door who has the operators' keys and nothing else.
func (s *stage) user(ctx context.Context) error {
	const act = "An end user outside, with nothing but the operators' keys"
	if err := errors.Join(s.leadTo(s.web, webPort), s.ingress.WaitReady(ctx)); err != nil {
		return err
	}
	said, code := s.asUser(ctx, "verify", "https://"+userHost)
	proven := strings.Count("\n"+said, "\nproven ")
	_, open, _ := strings.Cut(strings.TrimSpace(said), "does not prove: ")
	var err error
	if code != 3 || proven < 8 || strings.Contains(said, "REFUTED") {
		err = fmt.Errorf("exit code %d: %s", code, said)
	}
	s.add(act, "c8s verify https://"+userHost, fmt.Sprintf("%d steps proven; open, the TEE being SIMULATED and the log without witnesses: %s", proven, open), err)

	said, code = s.asUser(ctx, "curl", "https://"+userHost+"/")
	if err = nil; code == 0 || strings.Contains(said, canary) {
		err = fmt.Errorf("it sent a request: %s", said)
	}
	s.add(act, "c8s curl, while the hardware is simulated", "nothing was sent", err)

	receipt := filepath.Join(s.ingress.RunDir(), "receipt.json")
	said, code = s.asUser(ctx, "curl", "--allow-simulated", "--receipt", receipt, "https://"+userHost+"/")
	if err = nil; code != 0 || !strings.Contains(said, canary) {
		err = fmt.Errorf("exit code %d: %s", code, said)
	}
	s.add(act, "c8s curl --allow-simulated --receipt", "200 from pod web, and a signed receipt of it", err)
	return s.mislead(ctx, act)
}

// mislead has the Service lead to a pod that the operators did not list for the
// host, as who writes Services can.
func (s *stage) mislead(ctx context.Context, act string) error {
	if err := s.leadTo(s.client, webPort); err != nil {
		return err
	}
	var err error
	for range 100 { // the file is read a moment later
		said, _ := s.asUser(ctx, "curl", "--allow-simulated", "https://"+userHost+"/")
		if err = nil; strings.Contains(said, string(policy.CodeIngressWorkload)) || ctx.Err() != nil {
			break
		}
		err = fmt.Errorf("want a refusal, got %s", said)
	}
	s.add(act, "the Service of "+userHost+" is pointed at another attested pod", "refused: "+string(policy.CodeIngressWorkload), err)
	return errors.Join(s.leadTo(s.web, webPort), ctx.Err())
}

// asUser runs c8s next door.
func (s *stage) asUser(ctx context.Context, args ...string) (said string, code int) {
	state := filepath.Join(s.ingress.RunDir(), "user")
	out, err := s.Lab.Outside("next-door").Command(ctx, s.cast.web.path, append(args, "--operators", s.OperatorsFile(), "--state", state,
		"--insecure-web-pki", "--connect", s.ingress.Host.Addr4.String()+":443")...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		return err.Error(), -1
	}
	return string(out), code
}
