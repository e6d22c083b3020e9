// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/c8s-dev/c8s/policy"
)

// DenyList keeps the deny list in force. It is safe for concurrent use.
type DenyList struct {
	path        string // empty keeps nothing over a restart
	trustDomain string
	disk        filer

	mu      sync.Mutex
	inForce *policy.SignedDenyList
}

// OpenDenyList reads the deny list kept at path; no file means that none was
// ever in force. One of the given sets of operators must have signed it: the
// machine's trust anchor, and those of the manifest in force, which may have
// changed since.
func OpenDenyList(path, trustDomain string, operators ...policy.Operators) (*DenyList, error) {
	d := &DenyList{path: path, trustDomain: trustDomain, disk: disk()}
	if path == "" {
		return d, nil
	}
	raw, err := read(path, policy.MaxDenyListEnvelope)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d, nil
	case err != nil:
		return nil, fmt.Errorf("reading the kept deny list: %w", err)
	}
	if d.inForce, err = openDenyList(raw, operators); err == nil {
		err = d.own(d.inForce)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the kept deny list %s: %w (if the operators changed, have them sign a new list, put it in this file's place and start again)", path, err)
	}
	return d, nil
}

func openDenyList(raw []byte, operators []policy.Operators) (*policy.SignedDenyList, error) {
	if len(operators) == 0 {
		return nil, errors.New("no operators are trusted")
	}
	var errs []error
	for _, o := range operators {
		signed, err := policy.OpenDenyList(raw, o)
		if err == nil {
			return signed, nil
		}
		errs = append(errs, err)
	}
	return nil, errs[0] // by the first set: the others only explain changes
}

func (d *DenyList) own(l *policy.SignedDenyList) error {
	if l.List.TrustDomain != d.trustDomain {
		return policy.Decision{
			Code: policy.CodeTrustDomain, Rule: "trust domain of the deny list", Expected: d.trustDomain, Actual: l.List.TrustDomain,
			Remedy: "this deny list belongs to another mesh",
		}
	}
	return nil
}

// InForce returns the deny list in force, nil when there never was one.
func (d *DenyList) InForce() *policy.SignedDenyList {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inForce
}

// Adopt puts next in force once it, or a later one of another process, is on the
// disk, and reports whether that
// changed anything. An older or forked list is refused with the decision of
// policy.DenyListSucceeds. A machine that was away may have missed lists: it
// takes a later one, since each is the whole list.
func (d *DenyList) Adopt(next *policy.SignedDenyList) (changed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	decision := policy.DenyListSucceeds(d.inForce, next)
	switch decision.Code {
	case policy.CodeDenyListUnchanged:
		return false, nil
	case policy.CodeDenyListGap:
	default:
		if err := decision.Err(); err != nil {
			return false, err
		}
	}
	if err := d.own(next); err != nil {
		return false, err
	}
	if d.path != "" {
		notOlder := func() (bool, error) {
			l, err := peek(d.path, policy.MaxDenyListEnvelope, policy.ParseDenyList)
			return l == nil || next.List.Version >= l.Version, err
		}
		if err := d.disk.replaceIf(d.path, next.Envelope, notOlder); err != nil {
			return false, fmt.Errorf("keeping the deny list: %w", err)
		}
	}
	d.inForce = next
	return true, nil
}
