// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/test/privileged"
)

// nsenter stands for the node's: it notes what it was asked, and fails if the
// unit is called so.
const nsenter = `package main

import ("fmt"; "os"; "strings")

func main() {
	args := strings.Join(os.Args, " ")
	if err := os.WriteFile("/asked", []byte(args), 0o600); err != nil { panic(err) }
	if strings.HasSuffix(args, "broken.service") { fmt.Println("unit is broken"); os.Exit(4) }
}
`

// versionServer is a containerd that has started again.
type versionServer struct {
	cri.UnimplementedRuntimeServiceServer
}

func (versionServer) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "v2.4.2"}, nil
}

func TestRestartGoesThroughTheNodesOwnSystemd(t *testing.T) {
	privileged.Require(t) // chroot(2)
	root, src := t.TempDir(), t.TempDir()
	for _, dir := range []string{"run/systemd/system", "usr/bin", "run/containerd"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(src, "main.go"), []byte(nsenter), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(root, "usr/bin/nsenter"), filepath.Join(src, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l := layoutFlags{host.DefaultLayout()}
	l.Root = root
	ln, err := net.Listen("unix", filepath.Join(root, l.Containerd))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, versionServer{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})

	f := restartFlags{do: true, unit: "containerd.service"}
	if err := f.restart(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	asked, err := os.ReadFile(filepath.Join(root, "asked"))
	if want := "/usr/bin/nsenter --target 1 --mount -- systemctl restart containerd.service"; err != nil || string(asked) != want {
		t.Errorf("asked for %q (%v), expected %q", asked, err, want)
	}
	f.unit = "broken.service"
	if err := f.restart(t.Context(), l); err == nil || !strings.Contains(err.Error(), "unit is broken") {
		t.Errorf("a failing unit: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(root, "run/systemd")); err != nil {
		t.Fatal(err)
	}
	if err := f.restart(t.Context(), l); !errors.Is(err, errNoSystemd) {
		t.Errorf("without systemd: %v", err)
	}
}
