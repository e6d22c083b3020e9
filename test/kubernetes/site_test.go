// SPDX-License-Identifier: Apache-2.0

// Package kubernetes runs C8s as its users do: a real two-node Kubernetes, the
// Helm chart, the image, entries that `c8s manifest derive` wrote, and attackers
// with the administrator's credentials.
//
// Invariant: nothing here knows the inside of C8s. It signs manifests, applies
// YAML, and looks at what kubectl and c8s say.
package kubernetes

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/images"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
	"github.com/c8s-dev/c8s/test/stack/image"
)

// Namespace and references of what is deployed.
const (
	systemNamespace = "c8s-system"
	c8sRepository   = "local.test/c8s"
)

// Site is a cluster with C8s on it.
type Site struct {
	*stack.Cluster
	Pause, App, Nginx, C8s *image.Image
	Web                    *image.Image // with an ingress
	evil                   *image.Image // no entry lists it

	cwd       string // of the test
	bin       string // folder of the programs
	dir       string
	sim       string
	key       ed25519.PrivateKey
	operators policy.Operators
	manifest  *policy.Signed
	before    []nodeState // of each node, without C8s
	holds     int         // pods made that keep a connection

	settings []string             // of the chart, beside those that every site has
	ingress  []policy.IngressRule // of the first manifest
	edge     string               // the node of the ingress; empty: none has one
	webRoots *x509.CertPool       // of the CA that issues the ingress's certificates
}

// Option changes what a Site is.
type Option func(s *Site)

// WithIngress has an ingress on a node, for hosts of these rules, with
// certificates of an ACME CA.
func WithIngress(node string, rules ...policy.IngressRule) Option {
	return func(s *Site) {
		s.ingress, s.edge = rules, node
		s.settings = append(
			s.settings, "--set", "ingress.enabled=true", "--set", "ingress.drain=5s", "--set", "ingress.logLevel=debug",
			"--set", "ingress.nodeSelector.kubernetes\\.io/hostname="+node, "--set", "ingress.addresses={192.0.2.1}",
		)
	}
}

// New brings a cluster up and installs C8s by its chart, with entries for these
// workloads.
func New(t testing.TB, workloads func(s *Site) []policy.Workload, options ...Option) *Site {
	t.Helper()
	s := &Site{dir: t.TempDir()}
	for _, o := range options {
		o(s)
	}
	ctx := t.Context()
	var err error
	s.cwd, err = os.Getwd()
	must(t, err)
	must(t, s.build(ctx))
	s.Cluster = stack.NewCluster(t, stack.ClusterConfig{})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Report(context.WithoutCancel(ctx)))
		}
	})
	must(t, s.Import(ctx, s.C8s, s.App, s.Nginx))
	if s.edge != "" {
		s.Web, err = image.Web(ctx)
		must(t, err)
		must(t, s.Import(ctx, s.Web))
		s.startCA(t, s.node(s.edge))
	}
	must(t, s.remember(ctx))
	must(t, s.found())
	must(t, s.firstManifest(ctx, workloads(s)))
	must(t, s.install(ctx))
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// build makes the programs and the images.
func (s *Site) build(ctx context.Context) (err error) {
	s.bin = filepath.Join(s.dir, "bin")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", s.bin+"/",
		"github.com/c8s-dev/c8s/cmd/c8s", "github.com/c8s-dev/c8s/cmd/c8s-runtime", "github.com/c8s-dev/c8s/cmd/c8s-runtime-alone", "github.com/c8s-dev/c8s/cmd/c8s-cni")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w: %s", err, out)
	}
	if s.C8s, err = s.release("v1"); err != nil {
		return err
	}
	for _, make := range []struct {
		to   **image.Image
		from func(context.Context) (*image.Image, error)
	}{{&s.Pause, image.Pause}, {&s.App, image.App}, {&s.Nginx, image.Nginx}} {
		if *make.to, err = make.from(ctx); err != nil {
			return err
		}
	}
	return nil
}

// release is the image of C8s as version says it is.
func (s *Site) release(version string) (*image.Image, error) {
	spec, err := images.C8s(s.bin, version, "amd64")
	if err != nil {
		return nil, err
	}
	img, err := images.Build(spec)
	if err != nil {
		return nil, err
	}
	return image.New(c8sRepository+":"+version, img)
}

// found makes the operator and the simulated vendor.
func (s *Site) found() error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	operator, err := policy.NewOperatorKey("operator", key.Public())
	if err != nil {
		return err
	}
	s.key, s.sim = key, filepath.Join(s.dir, "sim")
	s.operators = policy.Operators{Threshold: 1, Keys: []policy.OperatorKey{operator}}
	raw, err := json.Marshal(s.operators)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path("operators.json"), raw, 0o600)
}

// node is the worker of a name.
func (s *Site) node(name string) *stack.Node {
	return s.Nodes[slices.IndexFunc(s.Nodes, func(n *stack.Node) bool { return n.Name() == name })]
}

func (s *Site) path(name string) string { return filepath.Join(s.dir, name) }

// firstManifest lists C8s itself, as the chart runs it, and the workloads.
func (s *Site) firstManifest(ctx context.Context, workloads []policy.Workload) error {
	substrate, err := devtee.Substrate(devtee.Options{Dir: s.sim, Machine: "any", Binary: s.program("c8s"), Operators: s.operators})
	if err != nil {
		return err
	}
	own, err := s.ownEntries(ctx)
	if err != nil {
		return err
	}
	return s.sign(&policy.Manifest{
		Schema: policy.Schema, TrustDomain: "kubernetes.c8s.example", Version: 1, Operators: s.operators, Substrates: []policy.Substrate{substrate},
		Sandboxes: []policy.Image{{Name: s.Pause.Ref, Digest: policy.Digest(s.Pause.Config)}},
		Workloads: slices.Concat(own, workloads), Ingress: s.ingress,
	})
}

// sign writes the manifest where helm finds it.
func (s *Site) sign(m *policy.Manifest) error {
	payload, err := policy.Encode(m)
	if err != nil {
		return err
	}
	envelope, err := policy.Sign(payload, s.key)
	if err != nil {
		return err
	}
	if s.manifest, err = policy.Open(envelope, s.operators); err != nil {
		return err
	}
	return os.WriteFile(s.path("manifest.json"), envelope, 0o600)
}

// Publish signs the next version after edit has changed it, hands it to the CDS
// and waits until every node has it in force.
func (s *Site) Publish(ctx context.Context, edit func(m *policy.Manifest)) error {
	next := *s.manifest.Manifest
	next.Workloads = slices.Clone(next.Workloads)
	edit(&next)
	next.Version, next.Previous = next.Version+1, s.manifest.Digest
	if err := os.Rename(s.path("manifest.json"), s.path("in-force.json")); err != nil {
		return err
	}
	if err := s.sign(&next); err != nil {
		return err
	}
	out, err := s.Nodes[0].Run(ctx, s.program("c8s"), "manifest", "publish", s.path("manifest.json"),
		"--cds", s.Nodes[0].Addr().String()+":15009", "--operators", s.path("operators.json"), "--manifest", s.path("in-force.json"), "--yes")
	if err != nil {
		return fmt.Errorf("publishing the manifest: %w: %s", err, out)
	}
	for _, n := range s.Nodes {
		if err := s.until(ctx, "the manifest in force on "+n.Name(), func() error {
			status, err := s.Status(ctx, n)
			if err == nil && status.Manifest.Version != next.Version {
				err = fmt.Errorf("version %d is", status.Manifest.Version)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Site) program(name string) string { return filepath.Join(s.bin, name) }

// chart is where commands on nodes find it, whatever folder they run in.
func (s *Site) chart() string { return filepath.Join(s.cwd, chartDir) }

// values are the chart's settings here.
func (s *Site) values() []string {
	name, tag, _ := strings.Cut(s.C8s.Ref, ":")
	return append([]string{
		"--set", "image.repository=" + name, "--set", "image.tag=" + tag, "--set", "image.pullPolicy=Never",
		"--set", "tee.kind=sim", "--set", "tee.simulated=true", "--set", "tee.simDir=" + s.sim,
		"--set", "node.drain=10s", "--set", "node.logLevel=debug",
		"--set", "cds.nodeSelector.kubernetes\\.io/hostname=" + s.Nodes[0].Name(),
		"--set", "node.cds={" + s.Nodes[0].Addr().String() + ":15009}",
	}, s.settings...)
}

// ownEntries has the chart say what it runs, and lists that.
func (s *Site) ownEntries(ctx context.Context) ([]policy.Workload, error) {
	yaml, err := s.Helm(ctx, append([]string{
		"template", "c8s", s.chart(), "-n", systemNamespace,
		"--set-string", "trust.operators=x", "--set-string", "trust.manifest=x",
	}, s.values()...)...)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.path("chart.yaml"), []byte(yaml), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, s.program("c8s"), "manifest", "derive", s.path("chart.yaml"),
		"--bootstrap", "c8s-node", "--image", s.C8s.Ref+"="+s.C8s.Config)
	var findings strings.Builder
	cmd.Stderr = &findings
	raw, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("deriving the entries of C8s: %w: %s", err, findings.String())
	}
	var entries []policy.Workload
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, fmt.Errorf("reading the derived entries: %w", err)
	}
	return entries, nil
}

// install runs the chart, and restarts containerd once the node's files are in
// place.
func (s *Site) install(ctx context.Context) error {
	if out, err := s.Helm(ctx, append([]string{
		"install", "c8s", s.chart(), "-n", systemNamespace, "--create-namespace",
		"--set-file", "trust.operators=" + s.path("operators.json"), "--set-file", "trust.manifest=" + s.path("manifest.json"),
	}, s.values()...)...); err != nil {
		return fmt.Errorf("installing the chart: %w: %s", err, out)
	}
	for _, n := range s.Nodes {
		if err := s.until(ctx, "the node's files", func() error {
			_, err := os.Stat(n.Path("/etc/containerd/conf.d/zz-c8s.toml"))
			return err
		}); err != nil {
			return err
		}
		if err := n.RestartContainerd(ctx); err != nil {
			return err
		}
	}
	// What containerd made before knows nothing of c8s-runtime, and takes added
	// processes from anybody.
	if _, err := s.Kubectl(ctx, "delete", "pods", "-n", systemNamespace, "--all", "--grace-period=1"); err != nil {
		return err
	}
	if err := s.Rollout(ctx, "daemonset/c8s-node", "-n", systemNamespace); err != nil {
		return err
	}
	return s.Rollout(ctx, "statefulset/c8s-cds", "-n", systemNamespace)
}

const patience = 2 * time.Minute

// until polls until check succeeds.
func (s *Site) until(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, err)
		case <-tick.C:
		}
	}
}
