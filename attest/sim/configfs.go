// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"
)

// Attributes of a report entry (Linux, Documentation/ABI/testing/
// configfs-tsm-report).
const (
	attrIn        = "inblob"
	attrOut       = "outblob"
	attrAux       = "auxblob"
	attrLevel     = "privlevel"
	attrFloor     = "privlevel_floor"
	attrProvider  = "provider"
	providerSNP   = "sev_guest\n"
	inblobSize    = 64
	highestVMPL   = 3
	levelBits     = 32
	levelNumerals = 10
)

// newConfigfs puts the TEE behind the files of the kernel's interface.
func newConfigfs(t *TEE) *faketsm.Client {
	return &faketsm.Client{Subsystems: map[string]configfsi.Client{
		"report": &faketsm.ReportSubsystem{
			MakeEntry:   t.makeEntry,
			CheckInAttr: t.checkAttr,
			ReadAttr:    t.readAttr,
			Entries:     make(map[string]*faketsm.ReportEntry),
			Random:      t.random,
		},
	}}
}

func (t *TEE) makeEntry() *faketsm.ReportEntry {
	return &faketsm.ReportEntry{InAttrs: map[string]*faketsm.ReportAttributeState{
		attrIn:    {},
		attrLevel: {Value: []byte(strconv.Itoa(int(t.opts.VMPL)))},
	}}
}

func (t *TEE) checkAttr(_ *faketsm.ReportEntry, attr string, contents []byte) error {
	switch attr {
	case attrIn:
		if len(contents) == 0 || len(contents) > inblobSize {
			return syscall.EINVAL
		}
		return nil
	case attrLevel:
		level, err := configfsi.Kstrtouint(contents, levelNumerals, levelBits)
		if err != nil || level < uint64(t.opts.VMPL) || level > highestVMPL {
			return syscall.EINVAL
		}
		return nil
	}
	return os.ErrPermission
}

func (t *TEE) readAttr(e *faketsm.ReportEntry, attr string) ([]byte, error) {
	switch attr {
	case attrProvider:
		return []byte(providerSNP), nil
	case attrAux:
		return t.table, nil
	case attrFloor:
		return fmt.Appendf(nil, "%d\n", t.opts.VMPL), nil
	case attrOut:
		return t.sign(e)
	}
	return nil, os.ErrNotExist
}

func (t *TEE) sign(e *faketsm.ReportEntry) ([]byte, error) {
	in := e.InAttrs[attrIn].Value
	if len(in) == 0 {
		return nil, syscall.EINVAL
	}
	level, err := configfsi.Kstrtouint(e.InAttrs[attrLevel].Value, levelNumerals, levelBits)
	if err != nil {
		return nil, syscall.EINVAL
	}
	r := t.report
	r.VMPL = uint32(level) //nolint:gosec // checked when written
	copy(r.ReportData[:], in)
	return r.Compose(t.random, t.key)
}
