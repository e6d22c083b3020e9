// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
)

func TestSomebodyMustSayWherePodsAre(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	config := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(config, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":"https://10.80.0.9:6443"}}],"contexts":[{"name":"c","context":{"cluster":"c"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		flags routesFlags
		says  string // the refusal, empty for none
		asks  bool   // an API server
	}{
		{routesFlags{}, "--no-kubernetes with --routes", false},
		{routesFlags{noKubernetes: true}, "--routes is required", false},
		{routesFlags{noKubernetes: true, file: "r", kubeconfig: config}, "exclude each other", false},
		{routesFlags{noKubernetes: true, file: "r"}, "", false},
		{routesFlags{kubeconfig: config}, "", true},
		{routesFlags{kubeconfig: config, file: "r"}, "", true},
		{routesFlags{kubeconfig: config + "x"}, "finding the API server", false},
	} {
		var cluster agent.Cluster
		err := tt.flags.check()
		if err == nil {
			cluster, err = tt.flags.cluster(netip.MustParseAddr("10.80.0.1"), "c8s-test", slog.New(slog.DiscardHandler))
		}
		switch {
		case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)), tt.says == "" && err != nil:
			t.Errorf("%+v: %v, want %q", tt.flags, err, tt.says)
		case err == nil && (cluster != nil) != tt.asks:
			t.Errorf("%+v: follows an API server: %v", tt.flags, cluster != nil)
		}
	}
}

func TestStatusSaysWhatTheRoutesRestOn(t *testing.T) {
	now := time.Now()
	full := agent.RoutesStatus{Static: 1, Nodes: 2, Pods: 3, Services: 4, Endpoints: 5}
	for want, change := range map[string]func(*agent.RoutesStatus){
		"1 static": func(*agent.RoutesStatus) {},
		"1 static; 2 nodes, 3 pods, 4 services with 5 endpoints, 6 ignored": func(r *agent.RoutesStatus) {
			r.Ignored, r.Cluster = 6, &agent.ClusterStatus{Connected: true}
		},
		"1 static; 2 nodes, 3 pods, 4 services with 5 endpoints; the API server was never reached": func(r *agent.RoutesStatus) {
			r.Cluster = &agent.ClusterStatus{}
		},
		"1 static; 2 nodes, 3 pods, 4 services with 5 endpoints; the API server is lost for 1m30s": func(r *agent.RoutesStatus) {
			r.Cluster = &agent.ClusterStatus{Since: now.Add(-90 * time.Second)}
		},
	} {
		r := full
		change(&r)
		if got := routesLine(r, now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
