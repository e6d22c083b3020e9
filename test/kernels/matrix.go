// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// row is one kernel of the matrix.
type row struct {
	name  string // on the command line
	suite string // of Debian, whose newest kernel it is
	// lacks are the features without which tests may be skipped; a test that is
	// skipped for anything else has failed.
	lacks []string
}

var matrix = []row{
	{name: "6.1", suite: "bookworm", lacks: []string{"tcx"}},
	{name: "6.12", suite: "bookworm-backports"},
	{name: "newest", suite: "trixie-backports"},
}

// modules are what the lock and the lab need beyond what kernels have built in.
var modules = []string{
	"veth", "bridge", "br_netfilter", "dummy", "macvlan", "vxlan", "8021q", "tun",
	"sch_ingress", "cls_bpf", "nf_tables", "nft_ct", "nft_nat", "nft_chain_nat", "nft_masq", "nft_reject_inet", "nft_fib_inet",
	"vsock",
}

// programs are what tests start, besides busybox.
var programs = []string{"nft", "ip", "tc", "tcpdump"}

// applets are the commands that busybox stands in for.
var applets = []string{"sh", "cat", "sleep", "setsid", "readlink", "true", "false", "ls", "mount", "umount", "kill", "env"}

// binary is a test binary that the guests run.
type binary struct {
	pkg   string   // folder in the module
	files []string // further files that its tests read, from the module's root
	run   string
	skip  string
	short string // what -short runs; nothing if empty
	limit time.Duration
}

func pick(names []string) ([]row, error) {
	if len(names) == 0 {
		return matrix, nil
	}
	var picked []row
	for _, name := range names {
		i := slices.IndexFunc(matrix, func(r row) bool { return r.name == name })
		if i < 0 {
			var known []string
			for _, r := range matrix {
				known = append(known, r.name)
			}
			return nil, fmt.Errorf("there is no kernel %q in the matrix (%s)", name, strings.Join(known, ", "))
		}
		picked = append(picked, matrix[i])
	}
	return picked, nil
}

var binaries = []binary{
	// Whether the programs and their reference in Go agree is a matter of the
	// programs alone, and takes long.
	{pkg: "bpf", skip: "^TestProgramAndReferenceAgreeOnDamagedPackets$", short: ".", limit: 5 * time.Minute},
	// What of the loader only reads files, of this repository too, or waits for
	// the clock is the same on every kernel.
	{
		pkg: "loader", limit: 10 * time.Minute,
		short: "^(TestNoAttackReachesItsVictim|TestLockedPodReachesNothing|TestTCPOfAnOpenPodReachesTheListenerWithItsDestination|" +
			"TestIngressQdiscInThePlaceOfClsactIsRefused|TestOnlyAPodsProcessesMakeSocketsInItsNamespace|TestPodsMakeNoSocketsThatGoAroundTheirLinks)$",
		skip: "^(TestPitfallsPageNamesTestsThatExist|TestKubeletThatCannotBeToldFromOthersIsRefused|TestRestartedKubeletProbesAgain|TestKubeletIsTakenFromItsConfiguredCgroup)$",
	},
	{pkg: "test/attacks", files: []string{"docs/lab.md"}, limit: 5 * time.Minute},
	{pkg: "test/e2e", run: "^(TestNoAttackFromAPodGetsOut|TestPodsTalkOverTheTunnelOnly|TestKilledDaemonLeavesPodsLocked)$", limit: 8 * time.Minute},
}
