// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/c8s-dev/c8s/test/stack"
)

// manner is how an attacker has changed a pod of C8s itself.
type manner struct {
	name, code string
	change     func(p *ownPod)
}

// ownPods are attempts to run C8s's own listed image in another manner than this
// workload of the chart does.
func ownPods(t *testing.T, prefix string, n *stack.Node, workload string, manners []manner) []attempt {
	t.Helper()
	all := make([]attempt, len(manners))
	for i, m := range manners {
		p := newOwnPod(t, workload, n)
		m.change(p)
		all[i] = attempt{prefix + m.name, m.code, p.yaml(prefix + m.name)}
	}
	return all
}

func nodeManners() []manner {
	return []manner{
		{"operators", "args-not-allowed", func(p *ownPod) {
			p.arg("--operators=/etc/c8s/operators.json", "--operators=/trust/operators.json")
			p.mount("trust", "/trust")
		}},
		{"operators-env", "env-not-allowed", func(p *ownPod) { p.env("C8S_FLAG_OPERATORS", "/trust/operators.json") }},
		{"cds-env", "env-not-allowed", func(p *ownPod) { p.env("C8S_FLAG_CDS", "10.99.0.3:15009") }},
		{"uninstall", "args-not-allowed", func(p *ownPod) { p.container()["command"] = []string{"/c8s", "node", "uninstall", "--yes"} }},
		{"pods-dir", "args-not-allowed", func(p *ownPod) { p.arg("--linger", "--pods-dir=/run/c8s/pods") }},
		{"other-trust", "mount-not-allowed", func(p *ownPod) { p.from("etc-c8s", map[string]any{"hostPath": map[string]any{"path": "/opt"}}) }},
		{"trust-by-map", "mount-not-allowed", func(p *ownPod) {
			p.from("etc-c8s", map[string]any{"configMap": map[string]any{"name": "c8s-trust"}})
		}},
		{"empty-state", "mount-not-allowed", func(p *ownPod) { p.from("state", map[string]any{"emptyDir": map[string]any{}}) }},
		{"part-of-state", "mount-not-allowed", func(p *ownPod) { p.part("state", "elsewhere") }},
		{"no-state", "mount-missing", func(p *ownPod) { p.without("state") }},
		{"pod-network", "host-network", func(p *ownPod) { delete(p.Spec, "hostNetwork") }},
	}
}

func cdsManners() []manner {
	return []manner{
		{"cds-operators", "args-not-allowed", func(p *ownPod) { p.arg("--operators=/etc/c8s/operators.json", "--operators=/tmp/operators.json") }},
		{"cds-trust", "mount-not-allowed", func(p *ownPod) {
			p.from("etc-c8s", map[string]any{"configMap": map[string]any{"name": "c8s-trust"}})
		}},
		{"cds-no-state", "mount-missing", func(p *ownPod) { p.without("state") }},
		{"cds-state", "mount-not-allowed", func(p *ownPod) { p.from("state", map[string]any{"emptyDir": map[string]any{}}) }},
	}
}

// ownPod is a pod as a workload of C8s makes them, without what would run
// before its main container.
type ownPod struct {
	t    testing.TB
	Spec map[string]any `json:"spec"`
}

func newOwnPod(t *testing.T, workload string, n *stack.Node) *ownPod {
	t.Helper()
	var of struct {
		Spec struct{ Template *ownPod }
	}
	must(t, json.Unmarshal([]byte(workload), &of))
	p := of.Spec.Template
	p.t = t
	for _, key := range []string{"initContainers", "affinity", "nodeSelector"} {
		delete(p.Spec, key)
	}
	for _, key := range []string{"livenessProbe", "readinessProbe", "resources"} {
		delete(p.container(), key)
	}
	p.Spec["nodeName"], p.Spec["terminationGracePeriodSeconds"] = n.Name(), 1
	return p
}

func (p *ownPod) yaml(name string) string {
	p.t.Helper()
	p.container()["name"] = "evil"
	raw, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "spec": p.Spec,
		"metadata": map[string]any{
			"name": name, "namespace": systemNamespace, "labels": map[string]string{"attack": "pod"},
			"annotations": map[string]string{"c8s.dev/tolerate-missing-plugin": "true"},
		},
	})
	must(p.t, err)
	return string(raw)
}

func (p *ownPod) container() map[string]any {
	return p.Spec["containers"].([]any)[0].(map[string]any)
}

func (p *ownPod) arg(from, to string) {
	args := p.container()["command"].([]any)
	i := slices.Index(args, any(from))
	if i < 0 {
		p.t.Fatalf("the chart's command has no %s: %v", from, args)
	}
	args[i] = to
}

func (p *ownPod) env(name, value string) {
	env, _ := p.container()["env"].([]any)
	p.container()["env"] = append(env, map[string]any{"name": name, "value": value})
}

// mount mounts one of its volumes at one more place.
func (p *ownPod) mount(name, path string) {
	p.container()["volumeMounts"] = append(p.container()["volumeMounts"].([]any), map[string]any{"name": name, "mountPath": path})
}

// from gives a volume another source.
func (p *ownPod) from(name string, source map[string]any) {
	volumes := p.Spec["volumes"].([]any)
	i := slices.IndexFunc(volumes, func(v any) bool { return v.(map[string]any)["name"] == name })
	if i < 0 {
		p.t.Fatalf("the chart has no volume %s", name)
	}
	source["name"] = name
	volumes[i] = source
}

// part mounts a folder of a volume instead of all of it.
func (p *ownPod) part(name, path string) {
	for _, m := range p.container()["volumeMounts"].([]any) {
		if m := m.(map[string]any); m["name"] == name {
			m["subPath"] = path
		}
	}
}

// without takes a volume away.
func (p *ownPod) without(name string) {
	named := func(v any) bool { return v.(map[string]any)["name"] == name }
	p.Spec["volumes"] = slices.DeleteFunc(p.Spec["volumes"].([]any), named)
	p.container()["volumeMounts"] = slices.DeleteFunc(p.container()["volumeMounts"].([]any), named)
}
