// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/policy"
)

// patience bounds the question: locking takes milliseconds, and the kubelet
// tries again by itself.
const patience = 10 * time.Second

// The plugin's own error codes, and one of the specification's (1.1.0, section
// "STATUS") that its library does not name.
const (
	codeRefused      uint = 100
	codeNotAvailable uint = 50
)

// locker is the daemon's gate.
type locker interface {
	Lock(ctx context.Context, r gate.LockRequest) error
	Ping(ctx context.Context) error
}

type plugin struct {
	out  io.Writer
	gate func(path string) locker
}

// netConf is the plugin's part of the network configuration.
type netConf struct {
	CNIVersion string          `json:"cniVersion"`
	Gate       string          `json:"gate"`
	PrevResult json.RawMessage `json:"prevResult"`
}

func parseConf(stdin []byte) (*netConf, error) {
	var c netConf
	if err := json.Unmarshal(stdin, &c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "reading the network configuration: "+err.Error(), "")
	}
	if !filepath.IsAbs(c.Gate) {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("c8s-cni: gate is %q, expected the path of the node daemon's socket", c.Gate),
			"run 'c8s node install' to chain the plugin")
	}
	return &c, nil
}

// add has the link locked and passes on what the plugin before it made.
func (p plugin) add(ctx context.Context, args *skel.CmdArgs) error {
	c, err := p.lock(ctx, args)
	if err != nil {
		return err
	}
	_, err = p.out.Write(append(bytes.TrimSpace(c.PrevResult), '\n'))
	return err
}

// check locks once more, which changes nothing on a link that is locked.
func (p plugin) check(ctx context.Context, args *skel.CmdArgs) error {
	_, err := p.lock(ctx, args)
	return err
}

func (p plugin) status(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	if err := p.gate(c.Gate).Ping(ctx); err != nil {
		return cniError(codeNotAvailable, c.Gate, err)
	}
	return nil
}

func (p plugin) lock(ctx context.Context, args *skel.CmdArgs) (*netConf, error) {
	c, err := parseConf(args.StdinData)
	if err != nil {
		return nil, err
	}
	r, err := c.question(args)
	if err != nil {
		return nil, err
	}
	if err := p.gate(c.Gate).Lock(ctx, *r); err != nil {
		return nil, cniError(types.ErrTryAgainLater, c.Gate, err)
	}
	return c, nil
}

// question describes the pod's link as the plugins before this one made it. The
// daemon asks the kernel for the rest, and believes the kernel.
func (c *netConf) question(args *skel.CmdArgs) (*gate.LockRequest, error) {
	if len(c.PrevResult) == 0 || string(c.PrevResult) == "null" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "c8s-cni: there is no prevResult, so no plugin before it made a network",
			"chain c8s-cni last: run 'c8s node install'")
	}
	generic, err := version.NewResult(c.CNIVersion, c.PrevResult)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "c8s-cni: reading prevResult: "+err.Error(), "")
	}
	result, err := types100.NewResultFromResult(generic)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "c8s-cni: reading prevResult: "+err.Error(), "")
	}
	for _, i := range result.Interfaces {
		if i.Sandbox != "" && i.Name != args.IfName {
			return nil, types.NewError(codeRefused, fmt.Sprintf("c8s-cni: the pod has the interface %s beside %s; only one can be locked", i.Name, args.IfName),
				"take the additional networks off the pod")
		}
	}
	r := &gate.LockRequest{NetNS: args.Netns, Interface: args.IfName, SandboxID: args.ContainerID}
	for _, ip := range result.IPs {
		a, okA := netip.AddrFromSlice(ip.Address.IP)
		bits, size := ip.Address.Mask.Size()
		if !okA || size == 0 {
			return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("c8s-cni: prevResult has no valid address in %q", ip.Address.String()), "")
		}
		r.Addresses = append(r.Addresses, netip.PrefixFrom(a.Unmap(), bits))
	}
	pod := podOf(args.Args)
	r.PodNamespace, r.PodName, r.PodUID = pod["K8S_POD_NAMESPACE"], pod["K8S_POD_NAME"], pod["K8S_POD_UID"]
	return r, nil
}

// podOf reads CNI_ARGS: pairs of the form key=value between semicolons.
func podOf(args string) map[string]string {
	pod := map[string]string{}
	for _, pair := range strings.Split(args, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			pod[key] = value
		}
	}
	return pod
}

// cniError says what to do: the text stands in the pod's events.
func cniError(code uint, path string, err error) error {
	var d policy.Decision
	switch {
	case errors.As(err, &d):
		return types.NewError(codeRefused, "c8s-cni: "+d.Error(), "")
	case errors.Is(err, gate.ErrNoDaemon):
		return types.NewError(code, "c8s-cni: no node daemon of C8s listens at "+path+", so the pod's network cannot be locked",
			"start the daemon on this node, or take C8s off it with 'c8s node uninstall'")
	}
	return types.NewError(code, "c8s-cni: "+err.Error(), "see the log of the C8s node daemon on this node")
}
