// SPDX-License-Identifier: Apache-2.0

package manifestcmd_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/manifestcmd"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func digestOf(letter string) policy.Digest {
	return policy.Digest("sha256:" + strings.Repeat(letter, 64))
}

// derived is the JSON output of derive.
type derived struct {
	Workloads []policy.Workload
	Findings  []struct{ Level, Object, Field, Message string }
}

func (d derived) has(level, object, field, message string) bool {
	return slices.ContainsFunc(d.Findings, func(f struct{ Level, Object, Field, Message string }) bool {
		return f.Level == level && f.Object == object && f.Field == field && strings.Contains(f.Message, message)
	})
}

// derive runs derive on a text or on a file of testdata/derive.
func derive(t *testing.T, code int, input string, args ...string) derived {
	t.Helper()
	d := newDesk(t)
	if text, err := os.ReadFile(filepath.Join("testdata", "derive", input)); err == nil {
		input = string(text)
	}
	d.Stdin = input
	r := d.RunArgs(append([]string{"derive", "-", "-o", "json"}, args...)...)
	var out derived
	if err := json.Unmarshal([]byte(r.Out), &out); err != nil || r.Code != code {
		t.Fatalf("derive %v: exit %d, %s; %v", args, r.Code, r.ErrOut, err)
	}
	return out
}

func TestDeriveReadsEveryKindAndWarnsOfWhatItCannotSay(t *testing.T) {
	out := derive(t, exit.OK, "shop.yaml", "--image", "nginx:1.29="+string(digestOf("c")))
	if len(out.Workloads) != 2 {
		t.Fatalf("workloads %+v", out.Workloads)
	}
	web, backup := out.Workloads[0], out.Workloads[1]
	a := policy.Image{Name: "registry.example.org/shop/web:1", Digest: digestOf("a")}
	want := []policy.Image{a, a, {Name: "nginx:1.29", Digest: digestOf("c")}}
	if web.Name != "web" || !slices.EqualFunc(web.Images, want, sameImage) || !slices.Equal(web.Namespaces, []string{"shop"}) || web.HostAccess || !web.HostNetwork {
		t.Errorf("web is %+v", web)
	}
	if backup.Name != "backup" || backup.Images[0].Digest != digestOf("b") || len(backup.Namespaces) != 0 || backup.HostNetwork {
		t.Errorf("backup is %+v", backup)
	}
	for _, f := range [][4]string{
		{"note", "Service/web", "", "skipped"},
		{"warning", "Deployment/web", "hostNetwork", "never joins"},
		{"warning", "Deployment/web", "hostPID", "every process"},
		{"warning", "Deployment/web", "volumes[host]", `"/etc"`},
		{"warning", "Deployment/web", "initContainers[migrate].image", "--image-config"},
		{"warning", "Deployment/web", "containers[web]", "privileged"},
		{"warning", "Deployment/web", "containers[web]", "NET_ADMIN"},
		{"note", "Deployment/web", "containers[web]", "--from NAME:53/udp"},
		{"warning", "Deployment/web", "containers[web]", "host port 53"},
		{"note", "Deployment/web", "containers[web]", "--from NAME:8080"},
		{"note", "CronJob/backup", "namespace", "--namespace"},
	} {
		if !out.has(f[0], f[1], f[2], f[3]) {
			t.Errorf("no finding %v in %+v", f, out.Findings)
		}
	}
	if out.has("warning", "Deployment/web", "volumes[tmp]", "") {
		t.Error("warned of a volume that is not the node's")
	}
}

func TestAnImageNamedByATagGivesNoEntry(t *testing.T) {
	out := derive(t, exit.Refused, "shop.yaml")
	if len(out.Workloads) != 0 || !out.has("error", "Deployment/web", "containers[proxy].image", "--image nginx:1.29=sha256:") {
		t.Errorf("derived %+v", out)
	}
	d := newDesk(t)
	d.Stdin = "kind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: nginx}]}"
	if r := d.Run("derive -"); r.Code != exit.Refused || r.Out != "" || !strings.Contains(r.ErrOut, "error: Pod/web containers[web].image") {
		t.Errorf("exit %d, %q, %q", r.Code, r.Out, r.ErrOut)
	}
}

func TestARunningPodsStatusGivesDigests(t *testing.T) {
	out := derive(t, exit.OK, "pods.json")
	want := []policy.Image{{Name: "busybox", Digest: digestOf("c")}, {Name: "nginx:1.29", Digest: digestOf("a")}}
	if len(out.Workloads) != 1 || out.Workloads[0].Name != "web" || !slices.EqualFunc(out.Workloads[0].Images, want, sameImage) {
		t.Errorf("derived %+v", out.Workloads)
	}
	if !out.has("note", "Pod/web-7d9c-xk2", "images", "compare them") {
		t.Errorf("findings %+v", out.Findings)
	}
}

func TestThePodsDescriptionOfANodeGivesAnEntry(t *testing.T) {
	const pod = `{"namespace": "shop", "name": "web-0", "uid": "1", "netns": "/run/netns/web", "interface": "eth0", "addresses": ["10.0.0.1"], "images": [%s]%s}`
	digest := `"` + string(digestOf("a")) + `"`
	replace := func(images, more string) string {
		return strings.Replace(strings.Replace(pod, "[%s]", "["+images+"]", 1), "%s", more, 1)
	}
	out := derive(t, exit.OK, replace(digest, ""))
	if len(out.Workloads) != 1 || out.Workloads[0].Name != "web-0" || out.Workloads[0].Images[0].Digest != digestOf("a") || out.Workloads[0].Namespaces[0] != "shop" {
		t.Errorf("derived %+v", out.Workloads)
	}
	if out = derive(t, exit.OK, replace(digest, `, "entry": "web"`)); out.Workloads[0].Name != "web" {
		t.Errorf("derived %+v", out.Workloads)
	}
	if out = derive(t, exit.Refused, replace(`"nginx"`, "")); !out.has("error", "pod shop/web-0", "images[0]", "sha256:") {
		t.Errorf("findings %+v", out.Findings)
	}
}

func TestDeriveRefusesWhatItCannotBeSureOf(t *testing.T) {
	pinned := "nginx@" + string(digestOf("a"))
	pod := func(name, image string) string {
		return "kind: Pod\nmetadata: {name: " + name + "}\nspec: {containers: [{name: c, image: \"" + image + "\"}]}\n"
	}
	for name, tt := range map[string]struct {
		input, field, message string
		args                  []string
	}{
		"another kind of digest": {pod("web", "nginx@sha512:ab"), "containers[c].image", "something else", nil},
		"no image":               {pod("web", ""), "containers[c].image", "names no image", nil},
		"no containers":          {"kind: Pod\nmetadata: {name: web}\nspec: {}\n", "", "no image", nil},
		"name":                   {pod("web.example", pinned), "name", "--name", nil},
		"two of one name":        {pod("web", pinned) + "---\n" + pod("web", pinned), "name", "another object", nil},
		"image of nobody":        {pod("web", pinned), "nginx:2", "no container", []string{"--image", "nginx:2=" + string(digestOf("b"))}},
		"no template":            {"kind: Deployment\nmetadata: {name: web}\nspec: {}\n", "spec", "no pod template", nil},
		"unknown controller":     {"kind: Rollout\nmetadata: {name: web}\nspec: {template: {spec: {}}}\n", "", "not known here", nil},
		"no object":              {"a: b\n", "", "neither", nil},
		"nothing":                {"", "", "no object that runs", nil},
		"bootstrap of nobody":    {pod("web", pinned), "node", "no object gives", []string{"--bootstrap", "node"}},
		"bootstrap in the mesh":  {pod("web", pinned), "web", "node's network", []string{"--bootstrap", "web"}},
	} {
		t.Run(name, func(t *testing.T) {
			out := derive(t, exit.Refused, tt.input, tt.args...)
			if len(out.Workloads) != 0 || !slices.ContainsFunc(out.Findings, func(f struct{ Level, Object, Field, Message string }) bool {
				return f.Level == "error" && f.Field == tt.field && strings.Contains(f.Message, tt.message)
			}) {
				t.Errorf("derived %+v", out)
			}
		})
	}
	d := newDesk(t)
	d.Write("two.yaml", []byte(pod("web", pinned)+"---\n"+pod("db", pinned)))
	d.Write("types.yaml", []byte("kind: Pod\nspec: {containers: {name: c}}\n"))
	d.Write("keys.yaml", []byte("kind: Pod\nkind: Pod\n"))
	d.Write("bomb.yaml", []byte(bomb()))
	d.Refused(exit.Misuse, "derive @two.yaml --name web", "for one workload")
	d.Refused(exit.Misuse, "derive @two.yaml --to db:1", "for one workload")
	d.Refused(exit.Misuse, "derive @two.yaml --image nginx", "--image must be")
	d.Refused(exit.Misuse, "derive @two.yaml --image a="+string(digestOf("a"))+" --image a="+string(digestOf("b")), "two digests")
	d.Refused(exit.Refused, "derive @types.yaml", "cannot unmarshal")
	d.Refused(exit.Refused, "derive @keys.yaml", "already defined")
	d.Refused(exit.Refused, "derive @bomb.yaml", "not a Kubernetes manifest")
	d.Refused(exit.Refused, "derive @missing", "no such file")
	d.Refused(exit.Misuse, "derive", "Usage:")
}

func TestDeriveMarksTheEntryThatStartsWithoutADaemon(t *testing.T) {
	const daemon = "kind: DaemonSet\nmetadata: {name: node}\nspec: {template: {spec: {hostNetwork: true, containers: [{name: c, image: node}]}}}\n---\n" +
		"kind: Pod\nmetadata: {name: web}\nspec: {hostNetwork: true, containers: [{name: c, image: node}]}\n"
	out := derive(t, exit.OK, daemon, "--image", "node="+string(digestOf("a")), "--bootstrap", "node")
	node, web := out.Workloads[0], out.Workloads[1]
	if !node.Bootstrap || node.Images[0].Run == nil || !slices.Equal(node.Images[0].Run.Sockets, policy.SocketKinds()) {
		t.Errorf("the daemon's entry: %+v", node)
	}
	if web.Bootstrap || web.Images[0].Run != nil && len(web.Images[0].Run.Sockets) > 0 {
		t.Errorf("another entry: %+v", web)
	}
	if !out.has("warning", "--bootstrap", "node", "whenever no daemon runs") {
		t.Errorf("findings %+v", out.Findings)
	}
}

// bomb is small text that its aliases make large.
func bomb() string {
	text := "kind: Pod\na: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		list := strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 9), ",")
		text += string(c) + ": &" + string(c) + " [" + list + "]\n"
	}
	return text + "metadata: {labels: *j}\n"
}

func TestThePinnedDigestWinsOverTheRunningOne(t *testing.T) {
	out := derive(t, exit.OK, "kind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: \"nginx@"+string(digestOf("a"))+
		"\"}]}\nstatus: {containerStatuses: [{name: c, imageID: \""+string(digestOf("b"))+"\"}]}\n")
	if out.Workloads[0].Images[0].Digest != digestOf("a") || !out.has("warning", "Pod/web", "containers[c].image", "the pod runs "+string(digestOf("b"))) {
		t.Errorf("derived %+v", out)
	}
}

func TestWhatIsDerivedCanBeAdded(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	text, err := os.ReadFile(filepath.Join("testdata", "derive", "pods.json"))
	if err != nil {
		t.Fatal(err)
	}
	d.Stdin = string(text)
	d.Stdin = d.Must("derive - --name front --to web:80").Out
	d.Must("add-workload @manifest.json --entries - --mutual")
	m := parse(t, d.Read("manifest.json"))
	if !m.PeerAllowed("front", "web", policy.ProtocolTCP, 80).Allowed {
		t.Errorf("workloads %+v", m.Workloads)
	}
}

// Whatever the input, entries that are written can be added to a manifest.
func FuzzDerive(f *testing.F) {
	for _, name := range []string{"shop.yaml", "pods.json", "run.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata", "derive", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(bomb()))
	f.Add([]byte(`{"netns": "/n", "name": "web", "images": ["` + string(digestOf("a")) + `"]}`))
	operators, _ := policytest.Operators(f, 1, 1)
	f.Fuzz(func(t *testing.T, text []byte) {
		d := desktest.New(t, manifestcmd.New)
		d.Stdin = string(text)
		r := d.Run("derive -")
		if r.Code != exit.OK {
			if r.Out != "" {
				t.Errorf("exit %d, but wrote %q", r.Code, r.Out)
			}
			return
		}
		var entries []policy.Workload
		if err := json.Unmarshal([]byte(r.Out), &entries); err != nil {
			t.Fatal(err)
		}
		m := policytest.Manifest(operators)
		m.Workloads = entries
		if _, err := policy.Encode(m); err != nil {
			t.Errorf("the entries cannot be added: %v", err)
		}
	})
}

func sameImage(a, b policy.Image) bool { return a.Name == b.Name && a.Digest == b.Digest }
