// SPDX-License-Identifier: Apache-2.0

// Package nri decides what may start on the node.
//
// Its invariant: nothing is admitted but by a rule of the manifest in force,
// judged on what the runtime will really start, and a pod stays in the entry
// that its first container bound it to. What is not known refuses: no manifest,
// an image whose configuration cannot be found, a pod nobody announced.
//
// Enforcer is the judge. It is asked by c8s-runtime, whose word is final because
// it sees the configuration that runs, and through Plugin by containerd's NRI
// hooks, which are earlier, say less, and make refusals readable. It also judges
// again what runs whenever another manifest comes into force.
package nri

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

// AnnotationEntry is the pod annotation that names the entry it wants to be
// bound to. It chooses among entries that fit, and makes none fit.
const AnnotationEntry = "c8s.dev/workload"

// openWithin is how long a container waits for its pod's network identity.
const openWithin = 30 * time.Second

// Runtime answers from containerd's records; *image.Resolver does.
type Runtime interface {
	// Container looks at the container's snapshot, never at names.
	Container(ctx context.Context, id string) (image.Container, error)
	// Config reads an image's configuration from the content store.
	Config(ctx context.Context, digest policy.Digest) (policy.ImageConfig, error)
	// Spec reads the OCI configuration with which a container was made.
	Spec(ctx context.Context, id string) ([]byte, error)
	// Stop ends a container with all its processes. The error is
	// image.ErrNotFound where nothing of it runs.
	Stop(ctx context.Context, id string) error
}

// Signatures finds the verified signatures of an image.
type Signatures interface {
	Of(ctx context.Context, image policy.ImageFacts) ([]policy.SignatureFacts, error)
}

// Opener waits until the pod's link is open to the mesh. The error says what
// holds it back.
type Opener interface {
	WaitOpen(ctx context.Context, podUID string) error
}

// Config is what an Enforcer needs. Only Signatures may be nil: no image is
// signed then.
type Config struct {
	Node       *facts.Node
	Runtime    Runtime
	Signatures Signatures
	Opener     Opener
	OpenWithin time.Duration // zero: 30 s
	Log        *slog.Logger
	Now        func() time.Time
}

// Enforcer knows the manifest in force, the pods of the node, and which entry
// each is bound to. It is safe for concurrent use.
type Enforcer struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	work    chan struct{} // something for Run to do

	mu       sync.Mutex
	manifest *policy.Manifest
	pods     map[string]*pod // by sandbox id
	changed  chan struct{}   // closed and replaced when pods changed
}

// New returns an enforcer that refuses everything until it has a manifest.
func New(cfg Config) (*Enforcer, error) {
	if cfg.Node == nil || cfg.Runtime == nil || cfg.Opener == nil || cfg.Log == nil || cfg.Now == nil {
		return nil, errors.New("making the enforcer: node, runtime, opener, log and clock are all needed")
	}
	if cfg.OpenWithin == 0 {
		cfg.OpenWithin = openWithin
	}
	e := &Enforcer{
		cfg: cfg, log: cfg.Log, work: make(chan struct{}, 1),
		pods: map[string]*pod{}, changed: make(chan struct{}),
	}
	e.metrics = newMetrics(e)
	return e, nil
}

// Manifest puts another manifest in force. Everything that runs is judged
// again; Run acts on what is no longer admitted.
func (e *Enforcer) Manifest(s *policy.Signed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.manifest = nil
	if s != nil {
		e.manifest = s.Manifest
	}
	for _, p := range e.pods {
		e.judgeAgain(p)
	}
	e.notify()
}

// notify tells watchers and Run that something changed. The caller holds mu.
func (e *Enforcer) notify() {
	close(e.changed)
	e.changed = make(chan struct{})
	select {
	case e.work <- struct{}{}:
	default:
	}
}
