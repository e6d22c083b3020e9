// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// publisher signs "unlisted" and may be listed.
func (w *world) publisher() (signer policy.Signer, sign func()) {
	keys, _ := policytest.Operators(w.t, 1, 1)
	signer = policy.Signer(keys.Keys[0])
	id, err := signer.ID()
	if err != nil {
		w.t.Fatal(err)
	}
	return signer, func() {
		w.runtime.set(func() {
			w.runtime.signatures[policytest.Digest("unlisted")] = []policy.SignatureFacts{{Signer: id}}
		})
	}
}

func (w *world) meshed(p testPod) bool {
	pods, _, _ := w.e.meshPods()
	_, ok := pods[p.uid]
	return ok
}

func bySigner(signer policy.Signer) func(*policy.Manifest) {
	return func(m *policy.Manifest) {
		m.Signers = []policy.Signer{signer}
		images := &m.Workloads[0].Images
		*images = append((*images)[:2:2], policy.Image{Name: "signed", Signers: []string{signer.Name}})
	}
}

// Who signed an image that is listed by its digest is not looked for. When a
// manifest lists it by its signer instead, what runs must not die of that.
func TestAManifestMayListBySignerWhatItListedByDigest(t *testing.T) {
	for name, tc := range map[string]struct{ signed, offline, stops bool }{
		"signed": {signed: true}, "not signed": {stops: true}, "registry away": {signed: true, offline: true, stops: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newWorld(t, func(m *policy.Manifest) {
					m.Workloads[0].Images = append(m.Workloads[0].Images, policy.Image{Name: "pinned", Digest: policytest.Digest("unlisted")})
				})
				w.background()
				signer, sign := w.publisher()
				p := w.announced(podOf("shop"))
				w.started(p, "c1", "unlisted")
				if tc.signed {
					sign()
				}
				w.runtime.set(func() { w.runtime.offline = tc.offline })
				w.next(bySigner(signer))
				synctest.Wait()
				if stopped := len(w.runtime.stops()) > 0; stopped != tc.stops || w.meshed(p) == tc.stops {
					t.Errorf("stopped %t, in the mesh %t", stopped, w.meshed(p))
				}
			})
		})
	}
}

// A daemon that starts while the registry is away knows of no signature.
func TestWhatMayBeSignedIsNotStoppedWhileNobodyCanSay(t *testing.T) {
	for _, host := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			w := newWorld(t)
			signer, sign := w.publisher()
			w.next(bySigner(signer))
			w.runtime.set(func() { w.runtime.offline = true })
			w.background()
			p := podOf("shop")
			p.host = host
			w.running(p, p.container("c1", "unlisted"))
			time.Sleep(time.Minute)
			synctest.Wait()
			if stopped := len(w.runtime.stops()) > 0; stopped != host || w.meshed(p) {
				t.Errorf("host network %t: stopped %t, in the mesh %t", host, stopped, w.meshed(p))
			}
			sign()
			w.runtime.set(func() { w.runtime.offline = false })
			time.Sleep(time.Minute)
			synctest.Wait()
			if w.meshed(p) == host {
				t.Errorf("host network %t: in the mesh %t once its signature was found", host, w.meshed(p))
			}
		})
	}
}
