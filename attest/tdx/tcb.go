// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// TCBStatus is Intel's judgement of a TCB level (PCS API v4, "TCB info").
type TCBStatus string

// The statuses.
const (
	UpToDate                          TCBStatus = "UpToDate"
	SWHardeningNeeded                 TCBStatus = "SWHardeningNeeded"
	ConfigurationNeeded               TCBStatus = "ConfigurationNeeded"
	ConfigurationAndSWHardeningNeeded TCBStatus = "ConfigurationAndSWHardeningNeeded"
	OutOfDate                         TCBStatus = "OutOfDate"
	OutOfDateConfigurationNeeded      TCBStatus = "OutOfDateConfigurationNeeded"
	Revoked                           TCBStatus = "Revoked"
)

// The needs a status stands for. Merging two statuses unites their needs.
const (
	needHardening = 1 << iota
	needConfiguration
	needUpdate
	needReplacement
	needUnknown
)

func (s TCBStatus) needs() int {
	switch s {
	case UpToDate:
		return 0
	case SWHardeningNeeded:
		return needHardening
	case ConfigurationNeeded:
		return needConfiguration
	case ConfigurationAndSWHardeningNeeded:
		return needConfiguration | needHardening
	case OutOfDate:
		return needUpdate
	case OutOfDateConfigurationNeeded:
		return needUpdate | needConfiguration
	case Revoked:
		return needReplacement
	}
	return needUnknown
}

// Merge returns the status of a whole whose parts have the statuses s and t:
// never better than either. Hardening is not mentioned where an update is
// needed anyway, as in Intel's own statuses. Unknown statuses give Revoked.
func (s TCBStatus) Merge(t TCBStatus) TCBStatus {
	needs := s.needs() | t.needs()
	has := func(n int) bool { return needs&n != 0 }
	switch {
	case has(needReplacement | needUnknown):
		return Revoked
	case has(needUpdate) && has(needConfiguration):
		return OutOfDateConfigurationNeeded
	case has(needUpdate):
		return OutOfDate
	case has(needConfiguration) && has(needHardening):
		return ConfigurationAndSWHardeningNeeded
	case has(needConfiguration):
		return ConfigurationNeeded
	case has(needHardening):
		return SWHardeningNeeded
	}
	return UpToDate
}

// Evaluation is what Intel's collateral says about a quote.
type Evaluation struct {
	Status           TCBStatus
	Advisories       []string  // Intel-SA numbers, sorted
	Date             time.Time // the oldest date of the levels that matched
	EvaluationNumber uint32    // tcbEvaluationDataNumber, the lower of TCB info and QE identity
	Issued           time.Time // of the oldest piece that Intel issues every 30 days: all but the root's revocation list
	NextUpdate       time.Time // of the piece that ends first
}

// merge adds one part's level.
func (e *Evaluation) merge(status TCBStatus, date time.Time, advisories []string) {
	if e.Status == "" {
		e.Status = UpToDate
	}
	e.Status = e.Status.Merge(status)
	if e.Date.IsZero() || date.Before(e.Date) {
		e.Date = date
	}
	e.Advisories = append(e.Advisories, advisories...)
	slices.Sort(e.Advisories)
	e.Advisories = slices.Compact(e.Advisories)
}

func earliest(first time.Time, more ...time.Time) time.Time {
	for _, t := range more {
		if t.Before(first) {
			first = t
		}
	}
	return first
}

func tcbUnknown(expected, actual string) error {
	return attest.NewFailure(CodeTCBUnknown, expected, actual, "fetch newer collateral, or update the platform")
}

func moduleUnknown(expected, actual string) error {
	return attest.NewFailure(CodeModuleUnknown, expected, actual, "fetch newer collateral; if it stays so, the module is not Intel's")
}

func enclaveUnknown(expected, actual string) error {
	return attest.NewFailure(CodeQEUnknown, expected, actual, "fetch newer collateral; if it stays so, the quoting enclave is not Intel's")
}

// evaluate finds the levels of the platform, the TDX module and the quoting
// enclave, and merges them: none stands in for another. A quote with two sets
// of module versions, of launch and of now, is judged by both.
func (e *Evaluation) evaluate(q *Quote, pck *PCK, info *tcbInfo, qe *qeIdentity) error {
	if err := e.module(q, info, q.TEETCBSVN); err != nil {
		return err
	}
	if err := e.platform(pck, info, q.TEETCBSVN); err != nil {
		return err
	}
	if q.BodyType == bodyTD15 && q.TEETCBSVN2 != q.TEETCBSVN {
		if err := e.module(q, info, q.TEETCBSVN2); err != nil {
			return err
		}
		if err := e.platform(pck, info, q.TEETCBSVN2); err != nil {
			return err
		}
	}
	e.EvaluationNumber = min(info.EvaluationNumber, qe.EvaluationNumber)
	return e.enclave(&q.QE, qe)
}

// moduleInLevels says from which component on the platform's levels count: the
// first two are the TDX module's where it has levels of its own.
func moduleInLevels(svn [16]byte) int {
	if svn[1] > 0 {
		return 2
	}
	return 0
}

func (e *Evaluation) platform(pck *PCK, info *tcbInfo, svn [16]byte) error {
	for _, level := range info.Levels {
		if level.matches(pck, svn) {
			e.merge(level.Status, level.Date, level.Advisories)
			return nil
		}
	}
	return tcbUnknown("a TCB level of Intel's that the platform reaches", fmt.Sprintf("SGX components %v, PCESVN %d, TDX components %v", pck.Components, pck.PCESVN, svn))
}

func (l *tcbLevel) matches(pck *PCK, svn [16]byte) bool {
	if pck.PCESVN < *l.TCB.PCESVN {
		return false
	}
	for i, c := range l.TCB.SGX {
		if pck.Components[i] < *c.SVN {
			return false
		}
	}
	for i := moduleInLevels(svn); i < components; i++ {
		if svn[i] < *l.TCB.TDX[i].SVN {
			return false
		}
	}
	return true
}

// module checks who made the TDX module and, where it has levels of its own,
// finds its level.
func (e *Evaluation) module(q *Quote, info *tcbInfo, svn [16]byte) error {
	id, want := &info.Module, "the TDX module's signer and attributes"
	if svn[1] > 0 {
		name := fmt.Sprintf("TDX_%02X", svn[1])
		i := slices.IndexFunc(info.Modules, func(m moduleIdentity) bool { return m.ID == name })
		if i < 0 {
			return moduleUnknown("a TDX module that Intel lists", name)
		}
		id, want = &info.Modules[i], "the signer and attributes of "+name
	}
	if !bytes.Equal(id.MRSigner, q.MRSignerSEAM[:]) || !maskedEqual(q.SEAMAttributes[:], id.AttributesMask, id.Attributes) {
		return moduleUnknown(want, fmt.Sprintf("signer %x, attributes %x", q.MRSignerSEAM, q.SEAMAttributes))
	}
	if svn[1] == 0 {
		return nil
	}
	for _, level := range id.Levels {
		if uint16(svn[0]) >= *level.TCB.ISVSVN {
			e.merge(level.Status, level.Date, level.Advisories)
			return nil
		}
	}
	return tcbUnknown("a level of "+id.ID+" that the module reaches", fmt.Sprintf("version %d", svn[0]))
}

func (e *Evaluation) enclave(r *QEReport, id *qeIdentity) error {
	switch {
	case !bytes.Equal(id.MRSigner, r.MRSigner[:]) || id.ISVProdID != r.ISVProdID:
		return enclaveUnknown(fmt.Sprintf("the quoting enclave's signer %x, product %d", id.MRSigner, id.ISVProdID), fmt.Sprintf("signer %x, product %d", r.MRSigner, r.ISVProdID))
	case !maskedEqual(r.Attributes[:], id.AttributesMask, id.Attributes) || !maskedEqual(r.miscSelect(), id.MiscSelectMask, id.MiscSelect):
		return enclaveUnknown("the quoting enclave's attributes", fmt.Sprintf("attributes %x, miscselect %x", r.Attributes, r.miscSelect()))
	}
	for _, level := range id.Levels {
		if r.ISVSVN >= *level.TCB.ISVSVN {
			e.merge(level.Status, level.Date, level.Advisories)
			return nil
		}
	}
	return tcbUnknown("a level that the quoting enclave reaches", fmt.Sprintf("version %d", r.ISVSVN))
}

// miscSelect is MISCSELECT in the report's order of bytes.
func (r *QEReport) miscSelect() []byte { return binary.LittleEndian.AppendUint32(nil, r.MiscSelect) }

func maskedEqual(value, mask, want []byte) bool {
	if len(value) != len(mask) || len(value) != len(want) {
		return false
	}
	for i := range value {
		if value[i]&mask[i] != want[i] {
			return false
		}
	}
	return true
}

// hexBytes is a value in hexadecimal.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}
