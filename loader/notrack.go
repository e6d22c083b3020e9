// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// nftTable is the name of our table in the family inet.
const nftTable = "c8s"

// notrackRule keeps packets of one mark out of connection tracking.
type notrackRule struct {
	chain string
	hook  *nftables.ChainHook
	marks []uint32
}

// notrackRules: captured packets enter by prerouting; the daemon's packets
// and replies to pods leave by output.
func (l *Loader) notrackRules() []notrackRule {
	return []notrackRule{
		{"prerouting", nftables.ChainHookPrerouting, []uint32{l.cfg.CaptureMark}},
		{"output", nftables.ChainHookOutput, []uint32{l.cfg.DaemonMark}},
	}
}

// exprs is "meta mark & mask == mark notrack".
func (l *Loader) exprs(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(l.cfg.MarkMask), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(mark)},
		&expr.Notrack{},
	}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func (l *Loader) nft() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithNetNSFd(int(l.ns.Fd())))
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w (nf_tables is needed)", err)
	}
	return c, nil
}

// installNotrack replaces the table in one transaction unless it is as it
// should be.
func (l *Loader) installNotrack() error {
	c, err := l.nft()
	if err != nil {
		return err
	}
	if l.notrackInstalled(c) {
		return nil
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: nftTable}
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	policy := nftables.ChainPolicyAccept
	for _, r := range l.notrackRules() {
		chain := c.AddChain(&nftables.Chain{
			Name: r.chain, Table: table, Type: nftables.ChainTypeFilter, Hooknum: r.hook, Priority: nftables.ChainPriorityRaw, Policy: &policy,
		})
		for _, mark := range r.marks {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: l.exprs(mark)})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("installing nftables table inet %s: %w (nf_tables and nf_conntrack are needed)", nftTable, err)
	}
	return nil
}

// notrackInstalled compares our chains with what they should be; whatever
// cannot be read counts as different.
func (l *Loader) notrackInstalled(c *nftables.Conn) bool {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: nftTable}
	for _, want := range l.notrackRules() {
		chain, err := c.ListChain(table, want.chain)
		if err != nil || chain.Hooknum == nil || *chain.Hooknum != *want.hook || chain.Priority == nil || *chain.Priority != *nftables.ChainPriorityRaw {
			return false
		}
		rules, err := c.GetRules(table, chain)
		if err != nil || len(rules) != len(want.marks) {
			return false
		}
		for i, mark := range want.marks {
			if !reflect.DeepEqual(rules[i].Exprs, l.exprs(mark)) {
				return false
			}
		}
	}
	return true
}

func (l *Loader) uninstallNotrack() error {
	c, err := l.nft()
	if err != nil {
		return err
	}
	c.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: nftTable})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing nftables table inet %s: %w", nftTable, err)
	}
	return nil
}
