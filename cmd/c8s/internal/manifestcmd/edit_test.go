// SPDX-License-Identifier: Apache-2.0

package manifestcmd_test

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func parse(t *testing.T, text []byte) *policy.Manifest {
	t.Helper()
	m, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func workload(t *testing.T, m *policy.Manifest, name string) *policy.Workload {
	t.Helper()
	w, ok := m.Workload(name)
	if !ok {
		t.Fatalf("there is no workload %q", name)
	}
	return w
}

func image(name string) string { return name + "@" + string(policytest.Digest(name)) }

func TestAddImageEditsAnUnsignedManifestInPlace(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	r := d.Must("add-image @manifest.json --workload web --image " + image("web:2"))
	if !strings.Contains(r.ErrOut, "widens  workloads[web].images") || r.Out != "" {
		t.Errorf("said %q and %q", r.Out, r.ErrOut)
	}
	m := parse(t, d.Read("manifest.json"))
	images := workload(t, m, "web").Images
	if len(images) != 2 || !sameImage(images[1], policy.Image{Name: "web:2", Digest: policytest.Digest("web:2")}) || m.Version != 1 {
		t.Errorf("version %d, images %v", m.Version, images)
	}
	if canonical, err := policy.Encode(m); err != nil || !bytes.Equal(canonical, d.Read("manifest.json")) {
		t.Errorf("the file is not written as Encode does: %v", err)
	}
	if entries, err := os.ReadDir(d.Dir); err != nil || len(entries) != 4 {
		t.Errorf("files are left: %v", entries)
	}
}

func TestAnEditOfASignedManifestStartsItsSuccessor(t *testing.T) {
	f := policytest.New(t)
	for name, line := range map[string]string{
		"next":         "next @one.json",
		"add-image":    "add-image @one.json --workload web --image " + image("web:2"),
		"add-workload": "add-workload @one.json --name job --image " + image("job"),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.Write("one.json", f.Envelope)
			d.Must(line + " -o @two.json")
			m := parse(t, d.Read("two.json"))
			if m.Version != f.Manifest.Version+1 || m.Previous != f.Digest {
				t.Errorf("version %d, previous %s", m.Version, m.Previous)
			}
			if !bytes.Equal(d.Read("one.json"), f.Envelope) {
				t.Error("the signed manifest was changed")
			}
			d.Refused(exit.Refused, line+" -o @two.json", "--force")
			d.Must(line + " -o @two.json --force")
			signed, err := policy.Sign(d.Read("two.json"), f.Keys...)
			if err != nil {
				t.Fatal(err)
			}
			next, err := policy.Open(signed, f.Operators)
			if err != nil {
				t.Fatal(err)
			}
			if err := policy.Succeeds(f.Signed, next).Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestASignedManifestIsNeverEditedInPlace(t *testing.T) {
	d := newDesk(t)
	f := policytest.New(t)
	d.Write("one.json", f.Envelope)
	line := "add-image @one.json --workload web --image " + image("web:2")
	for _, line := range []string{line, line + " --force", line + " -o @one.json --force", "next @one.json -o @one.json --force"} {
		d.Refused(exit.Misuse, line, "stays as it is")
	}
	if !bytes.Equal(d.Read("one.json"), f.Envelope) {
		t.Error("the signed manifest was changed")
	}
}

func TestEditsGoThroughPipes(t *testing.T) {
	d := newDesk(t)
	f := policytest.New(t)
	d.Stdin = string(f.Envelope)
	d.Stdin = d.Must("next -").Out
	d.Stdin = d.Must("add-image - --workload web --image " + image("web:2")).Out
	m := parse(t, []byte(d.Must("add-workload - --name job --image "+image("job")).Out))
	if m.Version != 2 || len(workload(t, m, "web").Images) != len(f.Manifest.Workloads[0].Images)+1 || workload(t, m, "job") == nil {
		t.Errorf("version %d, workloads %v", m.Version, m.Workloads)
	}
}

func TestAManifestThatIsNotFilledInCanBeEdited(t *testing.T) {
	d := newDesk(t)
	d.Must("init --trust-domain c8s.test --new-key @op.pem -o @m.json --operators-out @o.json")
	r := d.Must("add-workload @m.json --name web --image " + image("web"))
	if !strings.Contains(r.ErrOut, "still to be filled in") {
		t.Errorf("said %q", r.ErrOut)
	}
	text := string(d.Read("m.json"))
	if !strings.Contains(text, "FILL IN") || !strings.Contains(text, string(policytest.Digest("web"))) {
		t.Errorf("wrote %s", text)
	}
}

func TestAddWorkloadWithBothEndsOfItsRules(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	d.Must("add-workload @manifest.json --name db --namespace shop --host-access --from web:6379,6380 --mutual --image " + image("db"))
	d.Must("add-workload @manifest.json --name job --to db:6379 --to web:80 --to db:53,54/udp --mutual --image " + image("job"))
	m := parse(t, d.Read("manifest.json"))
	db := workload(t, m, "db")
	if !db.HostAccess || !slices.Equal(db.Namespaces, []string{"shop"}) {
		t.Errorf("db is %+v", db)
	}
	for _, tt := range []struct {
		from, to string
		port     uint16
		allowed  bool
	}{
		{"web", "db", 6379, true},
		{"web", "db", 6380, true},
		{"job", "db", 6379, true},
		{"job", "web", 80, true},
		{"job", "db", 6380, false},
		{"db", "web", 80, false},
	} {
		if got := m.PeerAllowed(tt.from, tt.to, policy.ProtocolTCP, tt.port); got.Allowed != tt.allowed {
			t.Errorf("%s to %s on %d: %v, want %t", tt.from, tt.to, tt.port, got, tt.allowed)
		}
	}
	for _, protocol := range []string{policy.ProtocolTCP, policy.ProtocolUDP} {
		if got := m.PeerAllowed("job", "db", protocol, 54); got.Allowed != (protocol == policy.ProtocolUDP) {
			t.Errorf("job to db on %s 54: %v", protocol, got)
		}
	}
	d.Must("add-workload @manifest.json --name db2 --from web:6379 --image " + image("db2"))
	if m = parse(t, d.Read("manifest.json")); m.PeerAllowed("web", "db2", policy.ProtocolTCP, 6379).Allowed {
		t.Error("without --mutual the other end's entry was changed")
	}
}

func TestEditsThatNodesWouldRefuseAreNotWritten(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	d.Write("entries.json", []byte(`[{"name":"x","images":[],"namespaces":[],"peers":{"to":[],"from":[]},"hostAccess":false}]`))
	d.Write("unknown.json", []byte(`[{"name":"x","hostUsers":true}]`))
	d.Write("two.json", []byte(`[] []`))
	d.Write("none.json", []byte(`[]`))
	d.Write("dup.json", bytes.Replace(d.Read("manifest.json"), []byte(`"version"`), []byte(`"version": 1, "version"`), 1))
	before := d.Read("manifest.json")
	web := image("web")
	tests := []struct {
		line string
		code int
		want string
	}{
		{"add-image @manifest.json --workload web --image " + web, exit.Refused, string(policy.CodeValueDuplicate)},
		{"add-image @manifest.json --workload bew --image " + image("b"), exit.Refused, "there are web"},
		{"add-image @manifest.json --workload web --image web:2", exit.Misuse, "NAME@sha256:"},
		{"add-image @manifest.json --workload web --image sha256:" + strings.Repeat("a", 64), exit.Misuse, "NAME@sha256:"},
		{"add-image @manifest.json --workload web", exit.Misuse, "required"},
		{"add-image @manifest.json --image " + web, exit.Misuse, "required"},
		{"add-image @dup.json --workload web --image " + image("b"), exit.Refused, string(policy.CodeDuplicateKey)},
		{"add-image @missing.json --workload web --image " + image("b"), exit.Refused, "no such file"},
		{"add-image --workload web", exit.Misuse, "Usage:"},
		{"add-image @manifest.json --workload web --repository a/b --image " + image("b"), exit.Misuse, "--signer"},
		{"add-image @manifest.json --workload web --signer nobody", exit.Refused, string(policy.CodeSignerUnknown)},
		{"add-image @manifest.json --workload web --env A --image " + image("b"), exit.Misuse, "--any-env A"},
		{"add-image @manifest.json --workload web --mount /a --image " + image("b"), exit.Misuse, "PATH=KIND"},
		{"add-image @manifest.json --workload web --mount /a=nfs --image " + image("b"), exit.Refused, string(policy.CodeMountSourceUnknown)},
		{"add-image @manifest.json --workload web --run @unknown.json --image " + image("b"), exit.Refused, "reading the run"},
		{"add-workload @manifest.json --name job --probe 65536 --image " + image("b"), exit.Misuse, "--probe must be"},
		{"add-workload @manifest.json --entries @entries.json --probe 1", exit.Misuse, "--entries"},
		{"add-signer @manifest.json --name x", exit.Misuse, "--key are required"},
		{"add-signer @manifest.json --name x --key @unknown.json", exit.Refused, "publisher's key"},
		{"add-sandbox @manifest.json", exit.Misuse, "--image"},
		{"add-ingress @manifest.json --name x", exit.Misuse, "--host or --backend"},
		{"add-ingress @manifest.json --host x.example", exit.Misuse, "--name is required"},
		{"add-ingress @manifest.json --name x --backend web", exit.Misuse, "NAME:PORT"},
		{"add-ingress @manifest.json --name x --backend web:0", exit.Misuse, "NAME:PORT"},
		{"add-ingress @manifest.json --name x --backend web:80/udp", exit.Misuse, "NAME:PORT"},
		{"add-ingress @manifest.json --name x --host x.example", exit.Refused, "list-empty"},
		{"add-ingress @manifest.json --name x --host x.example --backend shop:80", exit.Refused, "ingress-backend-invalid"},
		{"add-workload @manifest.json --name web --image " + image("b"), exit.Refused, string(policy.CodeNameDuplicate)},
		{"add-workload @manifest.json --name Web --image " + image("b"), exit.Refused, string(policy.CodeNameInvalid)},
		{"add-workload @manifest.json --name job --to db:1 --image " + image("b"), exit.Refused, string(policy.CodePeerUnknown)},
		{"add-workload @manifest.json --name job --to db:1 --mutual --image " + image("b"), exit.Refused, `no workload "db"`},
		{"add-workload @manifest.json --name job --to web --image " + image("b"), exit.Misuse, "--to must be"},
		{"add-workload @manifest.json --name job --to web:0 --image " + image("b"), exit.Misuse, "--to must be"},
		{"add-workload @manifest.json --name job --from web:80,x --image " + image("b"), exit.Misuse, "--from must be"},
		{"add-workload @manifest.json --name job", exit.Misuse, "--image are required"},
		{"add-workload @manifest.json --entries @entries.json", exit.Refused, string(policy.CodeListEmpty)},
		{"add-workload @manifest.json --entries @unknown.json", exit.Refused, "hostUsers"},
		{"add-workload @manifest.json --entries @two.json", exit.Refused, "after the array"},
		{"add-workload @manifest.json --entries @none.json", exit.Refused, "has none"},
		{"add-workload @manifest.json --entries @entries.json --name job", exit.Misuse, "--entries"},
		{"add-workload - --entries -", exit.Misuse, "standard input"},
		{"next @manifest.json", exit.Misuse, "not signed"},
	}
	for _, tt := range tests {
		d.Refused(tt.code, tt.line, tt.want)
	}
	if !bytes.Equal(d.Read("manifest.json"), before) {
		t.Error("a refused edit was written")
	}
}

func TestPublishersSandboxesAndRunsAreAddedAndShown(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	d.Must("new-key @vendor.pem")
	d.Write("nginx.json", []byte(nginxConfig))
	d.Write("run.json", []byte(`{"capabilities":["NET_ADMIN"],"env":[{"name":"A","any":true}]}`))
	d.Must("add-signer @manifest.json --name vendor --key @vendor.pem.pub")
	d.Must("add-sandbox @manifest.json --image-config pause:3=@nginx.json")
	r := d.Must("add-image @manifest.json --workload web --signer vendor --repository example.org/web --run @run.json --env MODE=a=b --any-env B --service-env " +
		"--mount /data=emptyDir --mount /host=/etc:ro --user 1:2 --arg /web --arg any")
	if !strings.Contains(r.ErrOut, "widens  workloads[web].images[signed by vendor as example.org/web]") {
		t.Errorf("said %q", r.ErrOut)
	}
	d.Must("add-workload @manifest.json --name job --probe 8080 --host-network --image-config nginx:1=@nginx.json")
	m := parse(t, d.Read("manifest.json"))
	image := workload(t, m, "web").Images[1]
	wantRun(t, image.Run, `{"args":["/web","any"],"env":[{"name":"A","any":true},{"name":"MODE","value":"a=b"},{"name":"B","any":true}],"serviceEnv":true,"user":"1:2",
		"mounts":[{"destination":"/data","source":"emptyDir"},{"destination":"/host","source":"/etc","readOnly":true}],"capabilities":["NET_ADMIN"]}`)
	config := policy.DigestOf([]byte(nginxConfig))
	job := workload(t, m, "job")
	if m.Sandboxes[0].Digest != config || job.Images[0].Digest != config || job.Images[0].Run != nil || job.Probes[0] != 8080 || !job.HostNetwork {
		t.Errorf("sandboxes %v, job %+v", m.Sandboxes, job)
	}
	shown := d.Must("show @manifest.json").Out
	for _, want := range []string{
		"vendor  ed25519", "pause:3 sha256:", "signed by vendor as example.org/web", `args ["/web" "any"]`, `env MODE="a=b"`, "env B, any value", "env of Services",
		"mount /host from /etc, read-only", "user 1:2", "capabilities NET_ADMIN", "probed on [8080]", "outside the mesh",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("show does not say %q:\n%s", want, shown)
		}
	}
}

func TestAddIngressMakesARuleAndExtendsIt(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	r := d.Must("add-ingress @manifest.json --name bank --host bank.example --backend web:8080")
	if !strings.Contains(r.ErrOut, "widens  ingress[bank]") {
		t.Errorf("said %q", r.ErrOut)
	}
	d.Must("add-ingress @manifest.json --name bank --host *.bank.example --backend web:8080,8081 --backend web:5432/tcp")
	d.Must("add-ingress @manifest.json --name shop --host shop.example --backend web:8080/http")
	web := func(mode string, ports ...uint16) policy.IngressBackend {
		return policy.IngressBackend{Workload: "web", Mode: mode, Ports: ports}
	}
	want := []policy.IngressRule{
		{Name: "bank", Hosts: []string{"bank.example", "*.bank.example"}, Backends: []policy.IngressBackend{web("http", 8080, 8081), web("tcp", 5432)}},
		{Name: "shop", Hosts: []string{"shop.example"}, Backends: []policy.IngressBackend{web("http", 8080)}},
	}
	if got := parse(t, d.Read("manifest.json")).Ingress; !reflect.DeepEqual(got, want) {
		t.Errorf("the rules are %+v", got)
	}
	d.Refused(exit.Refused, "add-ingress @manifest.json --name shop --host bank.example", "value-duplicate")
}

func TestShowAndDiffSayWhatIsOutsideTheMesh(t *testing.T) {
	d := newDesk(t)
	before := policytest.New(t)
	after := before.Next(t, func(m *policy.Manifest) {
		m.SameNode = policy.SameNodeLocal
		w := &m.Workloads[0]
		w.DNS = []string{"status.example.com"}
		w.External = []policy.External{
			{Name: "pay", Names: []string{"api.example.com"}, Ports: []uint16{443}, Protocol: "tcp", SNI: []string{"api.example.com"}},
			{Name: "ntp", CIDRs: []string{"192.0.2.1/32"}, Ports: []uint16{123}, Protocol: "udp"},
		}
		w.Publish = []policy.Publish{{Port: 8080, HostPort: 30080, From: []string{"192.0.2.0/24"}}}
		m.Ingress = []policy.IngressRule{{Name: "bank", Hosts: []string{"bank.example", "*.bank.example"}, Backends: []policy.IngressBackend{{Workload: policytest.Web, Mode: policy.ModeHTTP, Ports: []uint16{8080, 8081}}}}}
	})
	d.Write("one.json", before.Envelope)
	d.Write("two.json", after.Envelope)
	for command, wants := range map[string][]string{
		"show @two.json": {
			"judged and not encrypted", "resolves status.example.com", "OUTSIDE THE MESH pay: to api.example.com tcp [443], TLS for api.example.com",
			"OUTSIDE THE MESH ntp: to 192.0.2.1/32 udp [123]", "PUBLISHED on port 30080 of its node: port 8080, from 192.0.2.0/24",
			"ingress bank", "bank.example, *.bank.example", "to web by http [8080 8081]",
		},
		"diff @one.json @two.json": {
			"sameNode", "workloads[web].dns[status.example.com]", "workloads[web].external[pay]", "api.example.com, ports 443/tcp, TLS for api.example.com",
			"workloads[web].publish[30080]", "port 8080 as the node's port 30080, from 192.0.2.0/24",
			"ingress[bank]", "bank.example, *.bank.example to web by http, ports 8080, 8081",
		},
	} {
		out := d.Must(command).Out
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s does not say %q:\n%s", command, want, out)
			}
		}
	}
}
