// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/kube/kubetest"
	"github.com/c8s-dev/c8s/test/cluster"
)

// serveAPI puts the API server behind the Service default/kubernetes, as the
// control plane does: endpoints that are no pods, and the node's own rules that
// lead there from the Service's address.
func (k *kubernetes) serveAPI() {
	api := k.Lab.Outside("api")
	ln, err := api.Listen("tcp", netip.AddrPortFrom(api.Addr6, apiPort).String())
	if err != nil {
		k.t.Fatal(err)
	}
	srv := &http.Server{Handler: k.api, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(ln) }()
	k.t.Cleanup(func() { srv.Close() })
	k.api.Set(kubetest.Service("default/kubernetes", 443, apiVIP, apiVIP6), kubetest.Slice("default/kubernetes", "kubernetes", apiPort, api.Addr4.String()),
		kubetest.Slice("default/kubernetes-6", "kubernetes", apiPort, api.Addr6.String()))
	rules := fmt.Sprintf(`table inet services {
	chain output {
		type nat hook output priority -100
		ip daddr %s tcp dport 443 dnat ip to %s:%d
		ip6 daddr %s tcp dport 443 dnat ip6 to [%s]:%d
	}
}`, apiVIP, api.Addr4, apiPort, apiVIP6, api.Addr6, apiPort)
	onNode(k.t, k.Nodes[0], "nft", rules)
}

// apiServer asks the API server as a pod's client does.
func apiServer(t *testing.T, k *kubernetes, client *cluster.Pod, vip netip.AddrPort) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return client.Dial(ctx, "tcp", addr)
	}}, Timeout: 20 * time.Second}
	answer, err := c.Get("http://" + vip.String() + "/api/v1/services")
	if err != nil {
		t.Errorf("asking the API server at %s: %v", vip, err)
		return
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || !strings.Contains(string(body), apiVIP) {
		t.Errorf("the API server answers %q, %v", body, err)
	}
	r := recorded(t, client.On, func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Dst == vip })
	if r.Rule != "external/kubernetes" || r.Service != "default/kubernetes" {
		t.Errorf("%+v", r)
	}
}
