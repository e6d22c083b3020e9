// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// testRunning reaches into a pod that runs: by exec and all that is made of it,
// by debug containers, by forwarded ports, and by another image.
func testRunning(t *testing.T, s *Site) {
	ctx := t.Context()
	name, err := s.victim(ctx, "{.items[0].metadata.name}")
	must(t, err)
	for what, args := range map[string][]string{
		"exec":       {"exec", "-n", attacks, name, "--", "/usr/bin/id"},
		"exec tty":   {"exec", "-n", attacks, "-i", name, "--", "/bin/sh", "-c", "id"},
		"cp":         {"cp", attacks + "/" + name + ":/etc/passwd", "/tmp/stolen"},
		"kubelet":    {"create", "--raw", "/api/v1/nodes/worker1/proxy/run/" + attacks + "/" + name + "/nginx?cmd=/usr/bin/id", "-f", "/dev/null"},
		"the daemon": {"exec", "-n", systemNamespace, "daemonset/c8s-node", "-c", "node", "--", "/c8s", "node", "uninstall", "--yes"},
		"the CDS":    {"exec", "-n", systemNamespace, "c8s-cds-0", "--", "/c8s", "version"},
	} {
		out, err := s.Kubectl(ctx, args...)
		if err == nil {
			t.Errorf("%s: %s", what, out)
		} else if !explains(err.Error()+out, "exec-not-allowed") {
			t.Errorf("%s fails without its reason: %v, %s", what, err, out)
		}
	}
	attempts := []attempt{{name, "image-unlisted", ""}, {"node-debugger", "sandbox-setting", ""}, {"copied", "args-not-allowed", ""}}
	for _, args := range [][]string{
		{"debug", "-n", attacks, name, "--image=" + evilRef, "--image-pull-policy=Never", "--container=evil", "--target=nginx", "--profile=general", "--attach=false"},
		{"debug", "-n", attacks, name, "--image=" + s.App.Ref, "--image-pull-policy=Never", "--container=listed", "--profile=sysadmin", "--attach=false"},
		{"debug", "-n", attacks, "node/worker2", "--image=" + evilRef, "--image-pull-policy=Never", "--profile=sysadmin", "--attach=false"},
		{"debug", "-n", attacks, name, "--copy-to=copied", "--container=nginx", "--attach=false", "--", "/bin/sh"},
		{"set", "image", "-n", attacks, "deployment/victim", "nginx=" + evilRef},
	} {
		if out, err := s.Kubectl(ctx, args...); err != nil {
			t.Errorf("kubectl %v: %v, %s", args, err, out)
		}
	}
	must(t, s.until(ctx, "the pod with another image", func() error {
		next, err := s.victim(ctx, "{.items[-1:].metadata.name}")
		if err == nil && next == name {
			err = errors.New("there is only the first")
		}
		if err == nil {
			attempts = append(attempts, attempt{next, "image-unlisted", ""})
		}
		return err
	}))
	s.refused(t, attempts)
	s.forward(t, name)
}

// victim is something of the victim's pods, the oldest first: an attacker's
// update makes another one.
func (s *Site) victim(ctx context.Context, path string) (string, error) {
	return s.Kubectl(ctx, "get", "pods", "-n", attacks, "-l", "app=victim", "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath="+path)
}

// forward has the kubelet make a socket in the pod's own network.
func (s *Site) forward(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const local = "127.0.0.1:18080"
	cmd := s.ControlPlane.Command(ctx, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "port-forward", "-n", attacks, name, "18080:80")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	defer func() { cancel(); _ = cmd.Wait() }()
	must(t, s.until(ctx, "kubectl port-forward", func() error {
		conn, err := s.ControlPlane.Dial(ctx, "tcp", local)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		if answer, _ := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("through a forwarded port: %s", answer)
		}
		return nil
	}))
}
