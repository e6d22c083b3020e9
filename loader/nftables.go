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

// nftChain is one of our chains with its rules.
type nftChain struct {
	name  string
	hook  *nftables.ChainHook
	rules [][]expr.Any
}

// nftChains: captured packets enter by prerouting; the daemon's packets and
// replies to pods leave by output.
func (l *Loader) nftChains() []nftChain {
	capture, daemon := l.cfg.CaptureMark, l.cfg.DaemonMark
	return []nftChain{
		{"prerouting", nftables.ChainHookPrerouting, [][]expr.Any{
			l.exprs(capture, broadcast()...), l.exprs(capture, &expr.Notrack{}),
		}},
		{"output", nftables.ChainHookOutput, [][]expr.Any{l.exprs(daemon, &expr.Notrack{})}},
	}
}

// exprs is "meta mark & mask == mark" and what follows.
func (l *Loader) exprs(mark uint32, then ...expr.Any) []expr.Any {
	return append([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(l.cfg.MarkMask), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(mark)},
	}, then...)
}

// broadcast is "meta nfproto ipv4 meta l4proto udp fib daddr type broadcast
// drop". pod_egress refuses these too, by the addresses that it was told; here
// the kernel itself looks, so that no moment is left between a new network of
// the node and InstallBroadcasts. TCP ends at the stack's own check.
func broadcast() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(unix.RTN_BROADCAST)},
		&expr.Verdict{Kind: expr.VerdictDrop},
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

// installTable replaces the table in one transaction unless it is as it
// should be.
func (l *Loader) installTable() error {
	c, err := l.nft()
	if err != nil {
		return err
	}
	if l.tableInstalled(c) {
		return nil
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: nftTable}
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	policy := nftables.ChainPolicyAccept
	for _, r := range l.nftChains() {
		chain := c.AddChain(&nftables.Chain{
			Name: r.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: r.hook, Priority: nftables.ChainPriorityRaw, Policy: &policy,
		})
		for _, exprs := range r.rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("installing nftables table inet %s: %w (nf_tables, nft_fib_inet and nf_conntrack are needed)", nftTable, err)
	}
	return nil
}

// tableInstalled compares our chains with what they should be; whatever
// cannot be read counts as different.
func (l *Loader) tableInstalled(c *nftables.Conn) bool {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: nftTable}
	for _, want := range l.nftChains() {
		chain, err := c.ListChain(table, want.name)
		if err != nil || chain.Hooknum == nil || *chain.Hooknum != *want.hook || chain.Priority == nil || *chain.Priority != *nftables.ChainPriorityRaw {
			return false
		}
		rules, err := c.GetRules(table, chain)
		if err != nil || len(rules) != len(want.rules) {
			return false
		}
		for i, exprs := range want.rules {
			if !reflect.DeepEqual(rules[i].Exprs, exprs) {
				return false
			}
		}
	}
	return true
}

func (l *Loader) uninstallTable() error {
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
