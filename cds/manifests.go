// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"path/filepath"
	"sync"

	"github.com/c8s-dev/c8s/cds/manifestfile"
	"github.com/c8s-dev/c8s/policy"
)

// manifestName is the file in the state folder.
const manifestName = "manifest.dsse.json"

// manifests holds the manifest in force and wakes those who wait for the
// next one.
type manifests struct {
	path string

	publishing sync.Mutex // one publication at a time; nobody else waits for it

	mu      sync.Mutex // held for moments only: every call reads the manifest
	now     *policy.Signed
	changed chan struct{} // closed when now is replaced
}

func openManifests(dir string, given *policy.Signed, operators policy.Operators) (*manifests, error) {
	path := filepath.Join(dir, manifestName)
	signed, err := manifestfile.Newest(path, given.Envelope, operators)
	if err != nil {
		return nil, err
	}
	if err := manifestfile.Save(path, signed); err != nil {
		return nil, err
	}
	return &manifests{path: path, now: signed, changed: make(chan struct{})}, nil
}

func (m *manifests) current() *policy.Signed {
	signed, _ := m.watch()
	return signed
}

// watch returns the manifest in force and a channel that is closed when it no
// longer is.
func (m *manifests) watch() (*policy.Signed, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now, m.changed
}

// publish checks the envelope against the manifest in force, keeps it on disk
// and only then serves it.
func (m *manifests) publish(envelope []byte) (*policy.Signed, error) {
	m.publishing.Lock()
	defer m.publishing.Unlock()
	now := m.current()
	next, err := policy.Open(envelope, now.Manifest.Operators)
	if err != nil {
		return nil, err
	}
	if err := policy.Succeeds(now, next).Err(); err != nil {
		return nil, err
	}
	if err := manifestfile.Save(m.path, next); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = next
	close(m.changed)
	m.changed = make(chan struct{})
	return next, nil
}
