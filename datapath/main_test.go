// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// ownNetwork tells a process of the tests that its network is its own.
const ownNetwork = "C8S_DATAPATH_TEST_NETWORK"

// TestMain gives the tests a network namespace: the ports that manifests name
// are fixed, and must be free however many runs go on at the same time.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(m.Run()) // fuzz targets need no network, and their workers hang on this process
	}
	if os.Getenv(ownNetwork) == "" {
		code, err := inOwnNetwork()
		if !errors.Is(err, syscall.EPERM) {
			exit(code, err)
		}
		// Only root may make one. The others share the machine's.
	} else if err := furnish(); err != nil {
		exit(1, fmt.Errorf("preparing the tests' network: %w", err))
	}
	os.Exit(m.Run())
}

func exit(code int, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// inOwnNetwork runs this program again in a new network namespace.
func inOwnNetwork() (code int, err error) {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), ownNetwork+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("making a network for the tests: %w", err)
	}
	var failed *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &failed) {
		return max(failed.ExitCode(), 1), nil
	} else if err != nil {
		return 0, fmt.Errorf("running the tests in their network: %w", err)
	}
	return 0, nil
}

// furnish brings the loopback up, with an address that is no loopback's, and
// makes it the way to what is not the node's.
func furnish() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	ours := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 18, 0, 1), Mask: net.CIDRMask(32, 32)}}
	rest := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}
	return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, ours), netlink.RouteAdd(rest))
}
