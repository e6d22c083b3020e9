// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

const (
	manifestType = "application/vnd.c8s.manifest.v1+json"
	denyListType = "application/vnd.c8s.denylist.v1+json"
	maxManifests = 4096 // that are followed back
)

// manifest is what the operators sign (docs/policy.md). Members that say
// nothing about one certificate are not read further.
type manifest struct {
	Schema, TrustDomain, Previous, NotBefore string
	Version                                  uint64
	Production                               bool
	Operators                                operators
	Recovery                                 json.RawMessage
	Witnesses                                []struct{ Name, Key string }
	WitnessQuorum                            int
	Signers                                  []operatorKey
	Sandboxes                                json.RawMessage
	Unlisted                                 string
	Substrates                               []substrate
	Workloads                                []workload
	Ingress                                  json.RawMessage

	digest string
}

// readManifests follows "previous" from the manifest in force back as far as
// there are documents, and then forward again from the oldest one that the
// trusted operators signed: each must be signed by those its predecessor names.
func (a *audit) readManifests() (string, error) {
	envelopes, err := a.manifestEnvelopes()
	if err != nil {
		return "", err
	}
	var why error
	for i, envelope := range envelopes {
		if len(a.manifests) == 0 {
			m, err := openManifest(envelope, a.operators)
			if why = err; err == nil {
				a.manifests = append(a.manifests, m)
			}
			continue
		}
		last := a.manifests[len(a.manifests)-1]
		m, err := openManifest(envelope, last.Operators)
		if err == nil {
			err = cmp.Or(same("trust domain", last.TrustDomain, m.TrustDomain), same("previous", last.digest, m.Previous),
				must(m.Version > last.Version, "version", fmt.Sprintf("more than %d", last.Version), m.Version))
		}
		if err != nil {
			return "", fmt.Errorf("manifest %d of %d: %w", i+1, len(envelopes), err)
		}
		a.manifests = append(a.manifests, m)
	}
	if len(a.manifests) == 0 {
		return "", fmt.Errorf("none is signed by the trusted operators: %w", why)
	}
	first, last := a.manifests[0], a.inForce()
	return fmt.Sprintf("version %d (%s) to version %d (%s) of %s", first.Version, first.digest, last.Version, last.digest, last.TrustDomain), nil
}

// manifestEnvelopes returns them oldest first.
func (a *audit) manifestEnvelopes() ([][]byte, error) {
	envelope, err := a.documents.get("v1/manifest")
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for len(all) < maxManifests {
		all = append(all, envelope)
		previous, err := previousOf(envelope)
		if err != nil {
			return nil, err
		}
		if !isDigest(previous) {
			break
		}
		envelope, err = a.documents.get("v1/document/" + previous)
		if errors.Is(err, fs.ErrNotExist) {
			break // the CDS began with a later one
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Reverse(all)
	return all, nil
}

// previousOf believes nothing: it only says where to look next.
func previousOf(envelope []byte) (string, error) {
	var e struct{ Payload []byte }
	var m struct{ Previous string }
	if err := json.Unmarshal(envelope, &e); err != nil {
		return "", err
	}
	err := json.Unmarshal(e.Payload, &m)
	return m.Previous, err
}

func openManifest(envelope []byte, by operators) (*manifest, error) {
	payload, err := by.open(envelope, manifestType)
	if err != nil {
		return nil, err
	}
	m := &manifest{digest: digestOf(payload)}
	if err := strictJSON(payload, m); err != nil {
		return nil, err
	}
	_, err = m.Operators.parse()
	return m, cmp.Or(err, same("schema", "c8s.dev/manifest/v1", m.Schema))
}

func (a *audit) inForce() *manifest { return a.manifests[len(a.manifests)-1] }

// manifestOf returns the verified manifest of that digest.
func (a *audit) manifestOf(digest string) (*manifest, error) {
	for _, m := range a.manifests {
		if m.digest == digest {
			return m, nil
		}
	}
	return nil, &mismatch{"manifest", "one of those that go back to the trusted operators", digest}
}

// denyList is what the operators take back (docs/policy.md, "The deny list").
type denyList struct {
	Schema, TrustDomain, Previous string
	Version                       uint64
	Entries                       []struct{ Kind, Value, Reason string }

	digest string
}

// readDenyList reads it before the log, so that the log must have it.
func (a *audit) readDenyList() (string, error) {
	envelope, err := a.documents.optional("v1/denylist")
	if err != nil {
		return "", err
	}
	if envelope == nil {
		return "there is none; whether that is true, the log says", nil
	}
	payload, err := a.inForce().Operators.open(envelope, denyListType)
	if err != nil {
		return "", err
	}
	a.deny = &denyList{digest: digestOf(payload)}
	if err := strictJSON(payload, a.deny); err != nil {
		return "", err
	}
	return fmt.Sprintf("version %d, %d entries", a.deny.Version, len(a.deny.Entries)), cmp.Or(
		same("schema", "c8s.dev/denylist/v1", a.deny.Schema), same("trust domain", a.inForce().TrustDomain, a.deny.TrustDomain))
}

func (a *audit) checkDenied() (string, error) {
	if a.deny == nil {
		return "there is no deny list, and the log has none", nil
	}
	holder := map[string]string{
		"serial": a.leaf.SerialNumber.Text(16), "key": digestOf(a.leaf.RawSubjectPublicKeyInfo),
		"machine": a.claims.Machine, "measurement": hexOf(a.claims.Measurement), "workload": a.claims.Workload,
	}
	for _, e := range a.deny.Entries {
		value, known := holder[e.Kind]
		if err := cmp.Or(must(known, "kind of entry", "one that this program knows", e.Kind),
			must(value == "" || value != e.Value, e.Kind, "none that is denied", fmt.Sprintf("%s (%s)", e.Value, e.Reason))); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("none of %d entries", len(a.deny.Entries)), nil
}

// checkCountersigned: the CDS's word that the manifest and the deny list are
// in force, and where the log has them.
func (a *audit) checkCountersigned() (string, error) {
	last := a.inForce()
	index, err := a.countersigned("manifest", last.digest, last.Previous, last.Version, a.log.last("manifest"))
	if err != nil || a.deny == nil {
		return fmt.Sprintf("the manifest, log entry %d", index), err
	}
	index2, err := a.countersigned("denylist", a.deny.digest, a.deny.Previous, a.deny.Version, a.log.last("denylist"))
	return fmt.Sprintf("the manifest, log entry %d; the deny list, log entry %d", index, index2), err
}

func (a *audit) countersigned(kind, digest, previous string, version uint64, logged *entry) (int64, error) {
	envelope, err := a.documents.get("v1/countersignature/" + digest)
	if err != nil {
		return 0, err
	}
	type document struct {
		Schema      string `json:"schema"`
		Kind        string `json:"kind"`
		TrustDomain string `json:"trustDomain"`
		Version     uint64 `json:"version"`
		Digest      string `json:"digest"`
		Previous    string `json:"previous"`
		LogIndex    int64  `json:"logIndex"`
		Time        int64  `json:"time"`
	}
	payload, err := a.bundle.countersigner().open(envelope, "application/vnd.c8s.countersignature.v1+json")
	if err != nil {
		return 0, err
	}
	var got document
	if err := oneEncoding(payload, &got); err != nil {
		return 0, err
	}
	return got.LogIndex, same("countersignature",
		document{"c8s.dev/countersignature/v1", kind, a.inForce().TrustDomain, version, digest, previous, logged.index, logged.at.Unix()}, got)
}

// timeOr reads a time that is optional.
func timeOr(s string, otherwise time.Time) (time.Time, error) {
	if s == "" {
		return otherwise, nil
	}
	return instant(s)
}
