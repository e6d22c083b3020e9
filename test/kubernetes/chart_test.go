// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/stack/component"
)

const chartDir = "../../deploy/chart"

// helm runs the client, which needs no cluster for what is asked here.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	folders, err := component.Folders(t.Context(), component.Helm)
	if errors.Is(err, component.ErrNotBuilt) {
		privileged.Missing(t, os.Getenv(privileged.RequireEnv), err.Error())
	}
	must(t, err)
	cmd := exec.CommandContext(t.Context(), filepath.Join(folders[0], "helm"), args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// set makes --set flags of settings, after those that every install needs.
func set(settings ...string) []string {
	var flags []string
	for _, s := range append([]string{"trust.operators=o", "trust.manifest=m"}, settings...) {
		flags = append(flags, "--set", s)
	}
	return flags
}

func render(t *testing.T, settings ...string) (string, error) {
	t.Helper()
	return helm(t, append([]string{"template", "rel", chartDir, "-n", "sys"}, set(settings...)...)...)
}

// object is one of Kubernetes as YAML has it.
type object map[string]any

// at follows a path of keys; an element of a list is named by its "name".
func (o object) at(path ...string) any {
	var now any = map[string]any(o)
	for _, key := range path {
		switch v := now.(type) {
		case map[string]any:
			now = v[key]
		case []any:
			i := slices.IndexFunc(v, func(e any) bool { m, ok := e.(map[string]any); return ok && m["name"] == key })
			if i < 0 {
				return nil
			}
			now = v[i]
		default:
			return nil
		}
	}
	return now
}

// objects renders the chart, by "Kind/name".
func objects(t *testing.T, settings ...string) map[string]object {
	t.Helper()
	text, err := render(t, settings...)
	if err != nil {
		t.Fatal(err, text)
	}
	all := map[string]object{}
	for dec := yaml.NewDecoder(strings.NewReader(text)); ; {
		var o map[string]any // nested ones get the type of the outermost
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		if o == nil {
			continue
		}
		kind, _ := o["kind"].(string)
		name, _ := object(o).at("metadata", "name").(string)
		if kind == "" || name == "" || o["apiVersion"] == nil || all[kind+"/"+name] != nil {
			t.Fatalf("%q %q is no object, or is there twice", kind, name)
		}
		all[kind+"/"+name] = o
	}
}

func TestTheChartIsInOrder(t *testing.T) {
	if out, err := helm(t, append([]string{"lint", "--strict", chartDir}, set()...)...); err != nil {
		t.Error(err, out)
	}
}

func TestTheChartRefusesWhatItDoesNotKnowOrCannotBe(t *testing.T) {
	for name, tt := range map[string]struct {
		settings []string
		says     string
	}{
		"unknown key":             {[]string{"nodes.entry=x"}, "'nodes' not allowed"},
		"unknown key further in":  {[]string{"node.instal.enabled=true"}, "'instal' not allowed"},
		"another TEE":             {[]string{"tee.kind=none"}, "/tee/kind"},
		"a number for a text":     {[]string{"cds.entry=7"}, "/cds/entry"},
		"entry that is no label":  {[]string{"node.entry=C8s"}, "/node/entry"},
		"relative path":           {[]string{"node.kubeletDir=var"}, "/node/kubeletDir"},
		"CDS without a port":      {[]string{"node.cds={cds.example}"}, "/node/cds/0"},
		"drain without a unit":    {[]string{"node.drain=60"}, "/node/drain"},
		"a resolver by name":      {[]string{"node.dns.upstreams[0]=dns.example.com"}, "/node/dns/upstreams/0"},
		"an address as a prefix":  {[]string{"node.dns.private[0]=10.0.0.1"}, "/node/dns/private/0"},
		"no replica":              {[]string{"cds.replicas=0"}, "/cds/replicas"},
		"digest of another kind":  {[]string{"image.digest=sha1:00"}, "/image/digest"},
		"level":                   {[]string{"node.logLevel=loud"}, "/node/logLevel"},
		"metrics for everybody":   {[]string{"node.metricsAddress=:15020"}, "/node/metricsAddress"},
		"simulated by accident":   {[]string{"tee.kind=sim"}, "tee.simulated=true"},
		"replicas share nothing":  {[]string{"cds.replicas=3"}, "cds.etcd"},
		"no CDS at all":           {[]string{"cds.enabled=false"}, "nodes need a CDS"},
		"killed while it drains":  {[]string{"node.drain=90s"}, "terminationGracePeriodSeconds"},
		"killed, in minutes":      {[]string{"node.drain=2m"}, "terminationGracePeriodSeconds"},
		"nobody to trust":         {[]string{"trust.operators="}, "trust.operators is required"},
		"ingress without a CA":    {[]string{"ingress.enabled=true"}, "say who issues the ingress's certificates"},
		"ingress with two":        {[]string{"ingress.enabled=true", "ingress.selfSigned=true", "ingress.csr.enabled=true"}, "say who issues the ingress's certificates"},
		"ACME without TLS":        {[]string{"ingress.acme.directory=http://ca.example/dir"}, "/ingress/acme/directory"},
		"requests that are ended": {[]string{"ingress.enabled=true", "ingress.selfSigned=true", "ingress.drain=2m"}, "ingress.terminationGracePeriodSeconds"},
		"ingress of another kind": {[]string{"ingress.kind=StatefulSet"}, "/ingress/kind"},
		"ingress without a port":  {[]string{"ingress.httpsAddress=0.0.0.0"}, "/ingress/httpsAddress"},
		"an address for statuses": {[]string{"ingress.addresses={https://x}"}, "/ingress/addresses/0"},
		"no manifest to start by": {[]string{"trust.manifest="}, "trust.manifest is required"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, err := render(t, tt.settings...); err == nil || !strings.Contains(out, tt.says) {
				t.Errorf("%v, want one that says %q: %.2000s", err, tt.says, out)
			}
		})
	}
}

func TestTheChartBringsDashboardAndAlertsToWhoWantsThem(t *testing.T) {
	all := objects(t, "monitoring.dashboard.enabled=true", "monitoring.rules.enabled=true", "monitoring.rules.labels.release=prom")
	board := all["ConfigMap/c8s-dashboard"]
	file, err := os.ReadFile(filepath.Join(chartDir, "files/dashboard.json"))
	must(t, err)
	if board.at("data", "c8s.json") != string(file) || board.at("metadata", "labels", "grafana_dashboard") != "1" {
		t.Error("the dashboard is not the file, or has no label that Grafana looks for")
	}
	rules := all["PrometheusRule/c8s"]
	groups, _ := rules.at("spec", "groups").([]any)
	if len(groups) != 4 || rules.at("metadata", "labels", "release") != "prom" {
		t.Errorf("the rules have %d groups, or not the label that was asked for", len(groups))
	}
	raw, err := os.ReadFile(filepath.Join(chartDir, "files/alerts.yaml"))
	must(t, err)
	var want map[string]any
	must(t, yaml.Unmarshal(raw, &want))
	if !reflect.DeepEqual(any(groups), want["groups"]) {
		t.Error("the chart changes the rules")
	}
}

func TestTheChartRunsWhatItShould(t *testing.T) {
	usual := objects(t)
	var kinds []string
	for name := range usual {
		kinds = append(kinds, name)
	}
	slices.Sort(kinds)
	if want := []string{
		"ClusterRole/rel-c8s-node", "ClusterRoleBinding/rel-c8s-node", "ConfigMap/c8s-trust", "DaemonSet/c8s-node",
		"Service/c8s-cds", "ServiceAccount/c8s-cds", "ServiceAccount/c8s-node", "StatefulSet/c8s-cds",
	}; !slices.Equal(kinds, want) {
		t.Errorf("objects %v, want %v", kinds, want)
	}
	pod := func(path ...string) []string { return append([]string{"spec", "template", "spec"}, path...) }
	for _, tt := range []struct {
		object string
		path   []string
		want   any
	}{
		// A hand-over needs two daemons on a node, and time.
		{"DaemonSet/c8s-node", []string{"spec", "updateStrategy"}, map[string]any{"type": "RollingUpdate", "rollingUpdate": map[string]any{"maxSurge": 1, "maxUnavailable": 0}}},
		{"DaemonSet/c8s-node", pod("terminationGracePeriodSeconds"), 90},
		{"DaemonSet/c8s-node", pod("hostNetwork"), true},
		{"DaemonSet/c8s-node", pod("hostPID"), true},
		{"DaemonSet/c8s-node", pod("priorityClassName"), "system-node-critical"},
		{"DaemonSet/c8s-node", pod("tolerations"), []any{map[string]any{"operator": "Exists"}}},
		{"DaemonSet/c8s-node", pod("containers", "node", "readinessProbe", "exec", "command"), []any{"/c8s", "node", "ready"}},
		{"DaemonSet/c8s-node", pod("containers", "node", "env", "C8S_FLAG_INSTANCE", "valueFrom", "fieldRef", "fieldPath"), "metadata.name"},
		{"DaemonSet/c8s-node", pod("containers", "node", "securityContext", "readOnlyRootFilesystem"), true},
		{"DaemonSet/c8s-node", pod("containers", "node", "image"), "c8s.dev/c8s:0.1.0"},
		{"DaemonSet/c8s-node", []string{"spec", "template", "metadata", "annotations", "c8s.dev/workload"}, "c8s-node"},
		{"StatefulSet/c8s-cds", pod("hostNetwork"), true},
		{"StatefulSet/c8s-cds", pod("automountServiceAccountToken"), false},
		{"StatefulSet/c8s-cds", []string{"spec", "podManagementPolicy"}, "OrderedReady"},
		{"StatefulSet/c8s-cds", []string{"spec", "template", "metadata", "annotations", "c8s.dev/workload"}, "c8s-cds"},
		{"ServiceAccount/c8s-cds", []string{"automountServiceAccountToken"}, false},
		{"ConfigMap/c8s-trust", []string{"data"}, map[string]any{"operators.json": "o", "manifest.json": "m"}},
	} {
		if got := usual[tt.object].at(tt.path...); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %s is %v, want %v", tt.object, strings.Join(tt.path, "."), got, tt.want)
		}
	}
	args := func(all map[string]object, object string, path ...string) []string {
		var list []string
		for _, a := range all[object].at(pod(path...)...).([]any) {
			list = append(list, a.(string))
		}
		return list
	}
	node := args(usual, "DaemonSet/c8s-node", "containers", "node", "command")
	for _, want := range []string{"--linger", "--drain=60s", "--tee=auto", "--cds=c8s-cds.sys.svc:15009", "--host-process=/proc/1", "--cluster-domain=cluster.local", "--dns-service=kube-system/kube-dns"} {
		if !slices.Contains(node, want) {
			t.Errorf("the daemon's command %v lacks %s", node, want)
		}
	}
	other := objects(t, "cds.enabled=false", "node.cds={10.0.0.1:15009,10.0.0.2:15009}", "node.install.enabled=false",
		"image.digest=sha256:"+strings.Repeat("a", 64), "tee.kind=sim", "tee.simulated=true", "node.drain=1500ms", "node.terminationGracePeriodSeconds=2",
		"node.dns.upstreams={10.0.0.53,[fd00::53]:5353}", "node.dns.private={10.0.0.0/8}", "node.dns.domain=k8s.example")
	if other["StatefulSet/c8s-cds"] != nil || other["Service/c8s-cds"] != nil || other["ServiceAccount/c8s-cds"] != nil {
		t.Error("a CDS that was not asked for")
	}
	if other["DaemonSet/c8s-node"].at(pod("initContainers")...) != nil {
		t.Error("an installation that was not asked for")
	}
	if got := other["DaemonSet/c8s-node"].at(pod("containers", "node", "image")...); got != "c8s.dev/c8s@sha256:"+strings.Repeat("a", 64) {
		t.Errorf("image %v", got)
	}
	node = args(other, "DaemonSet/c8s-node", "containers", "node", "command")
	for _, want := range []string{
		"--cds=10.0.0.1:15009,10.0.0.2:15009", "--tee=sim", "--dns-upstream=10.0.0.53,[fd00::53]:5353", "--dns-private=10.0.0.0/8", "--cluster-domain=k8s.example",
	} {
		if !slices.Contains(node, want) {
			t.Errorf("the daemon's command %v lacks %s", node, want)
		}
	}
	replicas := objects(t, "cds.replicas=3", "cds.etcd={https://10.0.0.1:2379,https://10.0.0.2:2379}", "cds.etcdSecret=etcd", "cds.join={10.0.0.1:15009}")
	cds := args(replicas, "StatefulSet/c8s-cds", "containers", "cds", "command")
	for _, want := range []string{"--etcd=https://10.0.0.1:2379,https://10.0.0.2:2379", "--etcd-key=/etcd/tls.key", "--join=10.0.0.1:15009"} {
		if !slices.Contains(cds, want) {
			t.Errorf("the CDS's command %v lacks %s", cds, want)
		}
	}
	if slices.ContainsFunc(cds, func(a string) bool { return strings.HasPrefix(a, "--state-dir") }) {
		t.Errorf("a replica keeps a store of its own: %v", cds)
	}
}

// The ingress is off until somebody wants it: it opens ports of the nodes.
func TestTheChartRunsAnIngressForWhoWantsOne(t *testing.T) {
	all := objects(t, "ingress.enabled=true", "ingress.acme.directory=letsencrypt", "ingress.acme.contact={ops@bank.example}", "ingress.addresses={192.0.2.1,lb.example}",
		"ingress.httpAddress=", "ingress.http3=true", "ingress.acme.caConfigMap=ca", "ingress.acme.accountSecret=account", "ingress.proxyProtocolFrom={10.0.0.0/8}")
	pod := func(path ...string) []string { return append([]string{"spec", "template", "spec"}, path...) }
	in := all["DaemonSet/c8s-ingress"]
	for _, tt := range []struct {
		path []string
		want any
	}{
		{[]string{"spec", "updateStrategy"}, map[string]any{"type": "RollingUpdate", "rollingUpdate": map[string]any{"maxSurge": 0, "maxUnavailable": 1}}}, // ports of the node
		{pod("hostNetwork"), true},
		{pod("terminationGracePeriodSeconds"), 90},
		{[]string{"spec", "template", "metadata", "annotations", "c8s.dev/workload"}, "c8s-ingress"},
		{pod("containers", "ingress", "securityContext", "readOnlyRootFilesystem"), true},
		{pod("containers", "ingress", "readinessProbe", "httpGet", "path"), "/readyz"},
		{pod("containers", "ingress", "env", "C8S_FLAG_ADDRESS", "valueFrom", "fieldRef", "fieldPath"), "status.hostIP"},
		{pod("volumes", "acme-ca", "configMap", "name"), "ca"},
		{pod("volumes", "acme-account", "secret", "secretName"), "account"},
	} {
		if got := in.at(tt.path...); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s is %v, want %v", strings.Join(tt.path, "."), got, tt.want)
		}
	}
	args, _ := in.at(pod("containers", "ingress", "command")...).([]any)
	for _, want := range []string{
		"/c8s", "ingress", "--cds=c8s-cds.sys.svc:15009", "--acme-directory=letsencrypt", "--acme-contact=ops@bank.example", "--publish-address=192.0.2.1,lb.example",
		"--https-address=:443", "--http-address=", "--http3", "--acme-ca-file=/acme-ca/ca.pem", "--acme-eab-file=/acme-account/eab.json", "--proxy-protocol-from=10.0.0.0/8",
		"--ingress-class=c8s", "--gateway-class=c8s", "--state-dir=/var/lib/c8s-ingress", "--tee=auto", "--drain=60s",
	} {
		if !slices.Contains(args, any(want)) {
			t.Errorf("the command %v lacks %s", args, want)
		}
	}
	if all["IngressClass/c8s"].at("spec", "controller") != "c8s.dev/ingress" || all["GatewayClass/c8s"] != nil {
		t.Error("no IngressClass, or a GatewayClass where nobody said that there is such a thing")
	}
	other := objects(t, "ingress.enabled=true", "ingress.csr.enabled=true", "ingress.kind=Deployment", "ingress.replicas=3", "ingress.gatewayClass.create=true", "ingress.gatewayClass.name=inner",
		"ingress.ingressClass.default=true", "ingress.ingressClass.name=usual")
	in = other["Deployment/c8s-ingress"]
	if in.at("spec", "replicas") != 3 || in.at(pod("affinity", "podAntiAffinity")...) == nil || other["DaemonSet/c8s-ingress"] != nil {
		t.Error("a Deployment without its replicas on different nodes")
	}
	args, _ = in.at(pod("containers", "ingress", "command")...).([]any)
	if !slices.Contains(args, any("--csr-out=/var/lib/c8s-ingress/request.csr")) || slices.ContainsFunc(args, func(a any) bool { return strings.HasPrefix(a.(string), "--acme") }) {
		t.Errorf("the command %v is not that for an internal CA", args)
	}
	if other["GatewayClass/inner"].at("spec", "controllerName") != "c8s.dev/ingress" || other["IngressClass/usual"].at("metadata", "annotations", "ingressclass.kubernetes.io/is-default-class") != "true" {
		t.Error("classes are not those that were asked for")
	}
}

// The ingress's rights are those that docs/ingress-kubernetes.md gives.
func TestTheChartGivesTheIngressTheDocumentedRights(t *testing.T) {
	all := objects(t, "ingress.enabled=true", "ingress.selfSigned=true")
	if got, want := all["ClusterRole/rel-c8s-ingress"]["rules"], documentedRules(t, "../../docs/ingress-kubernetes.md"); want == nil || !reflect.DeepEqual(got, want) {
		t.Errorf("rules %v, documented are %v", got, want)
	}
	binding := all["ClusterRoleBinding/rel-c8s-ingress"]
	if !reflect.DeepEqual(binding["subjects"], []any{map[string]any{"kind": "ServiceAccount", "name": "c8s-ingress", "namespace": "sys"}}) ||
		binding.at("roleRef", "name") != "rel-c8s-ingress" {
		t.Errorf("bound: %v", binding)
	}
}

// documentedRules are those of the role that a page has.
func documentedRules(t *testing.T, file string) any {
	t.Helper()
	page, err := os.ReadFile(file)
	must(t, err)
	_, block, _ := strings.Cut(string(page), "```yaml\napiVersion: rbac")
	block, _, _ = strings.Cut(block, "```")
	var documented map[string]any
	must(t, yaml.Unmarshal([]byte("apiVersion: rbac"+block), &documented))
	return documented["rules"]
}

// The daemon's rights are those that docs/kubernetes.md gives, word for word.
func TestTheChartGivesTheDocumentedRights(t *testing.T) {
	all := objects(t)
	if got, want := all["ClusterRole/rel-c8s-node"]["rules"], documentedRules(t, "../../docs/kubernetes.md"); want == nil || !reflect.DeepEqual(got, want) {
		t.Errorf("rules %v, documented are %v", got, want)
	}
	binding := all["ClusterRoleBinding/rel-c8s-node"]
	if !reflect.DeepEqual(binding["subjects"], []any{map[string]any{"kind": "ServiceAccount", "name": "c8s-node", "namespace": "sys"}}) ||
		binding.at("roleRef", "name") != "rel-c8s-node" {
		t.Errorf("bound: %v", binding)
	}
}
