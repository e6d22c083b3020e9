// SPDX-License-Identifier: Apache-2.0

package manifestcmd_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// wantRun compares a rule's run, written as it stands in a manifest.
func wantRun(t *testing.T, got *policy.Run, want string) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil || string(text) != strings.Join(strings.Fields(want), "") {
		t.Errorf("the run is\n%s\nwant\n%s", text, want)
	}
}

func TestDeriveSaysHowContainersAreStarted(t *testing.T) {
	out := derive(t, exit.OK, "run.yaml")
	if len(out.Workloads) != 1 || len(out.Workloads[0].Images) != 2 {
		t.Fatalf("derived %+v", out)
	}
	w := out.Workloads[0]
	wantRun(t, w.Images[0].Run, `{"args":["chown","-R","999","$(OWNER)","/data","$(NOBODY)"],"env":[{"name":"OWNER","value":"999"}],
		"user":"0:998","groups":[5,997],"mounts":[{"destination":"/data","source":"persistentVolume"}],
		"hostNamespaces":["pid","ipc"],"sysctls":["net.core.somaxconn"]}`)
	wantRun(t, w.Images[1].Run, `{"env":[{"name":"DB_PASSWORD","any":true},{"name":"MODE","value":"prod"},{"name":"NODE","any":true},{"name":"URL","value":"db://prod"},{"name":"WHERE","any":true}],
		"cwd":"/srv","user":"999:998","groups":[5,997],
		"mounts":[{"destination":"/data","source":"persistentVolume"},{"destination":"/dev/shm2","source":"memory"},{"destination":"/etc/db","source":"configMap","readOnly":true},
			{"destination":"/host","source":"/var/log","readOnly":true,"required":true},{"destination":"/img","source":"image","readOnly":true}],
		"devices":["/dev/xvda"],"capabilities":["NET_ADMIN","SYS_NICE"],"hostNamespaces":["pid","ipc"],"sysctls":["net.core.somaxconn"],"stdin":true}`)
	if got, err := json.Marshal(w.Exec); err != nil || string(got) != `[{"args":["db","ping","prod"]},{"args":["db","stop","$(MODE)"]}]` {
		t.Errorf("exec %s, %v", got, err)
	}
	if len(w.Probes) != 2 || w.Probes[0] != 5432 || w.Probes[1] != 8080 || w.HostAccess {
		t.Errorf("probes %v", w.Probes)
	}
	for _, f := range [][3]string{
		{"warning", "hostPID", "every process"},
		{"warning", "hostIPC", "memory"},
		{"warning", "containers[db].image", "--image-config"},
		{"warning", "containers[db]", "entrypoint"},
		{"warning", "containers[db]", "looks like a secret"},
		{"warning", "containers[db]", "envFrom"},
		{"note", "containers[db]", `"NODE" comes from`},
		{"note", "containers[db]", `"WHERE" uses NODE`},
		{"warning", "containers[db]", "ALL capabilities"},
		{"warning", "containers[db]", "SYS_NICE, NET_ADMIN"},
		{"warning", "containers[db]", "unmasked /proc"},
		{"warning", "containers[db]", `"/nfs"`},
		{"warning", "containers[db]", "share mounts"},
		{"note", "containers[db]", `volume "image"`},
		{"warning", "containers[db]", "/dev/xvda"},
		{"warning", "containers[db]", "example.com/gpu"},
		{"warning", "containers[db]", "termination log"},
		{"warning", "containers[db]", "type into it"},
		{"note", "containers[db]", "port 5432"},
		{"note", "containers[db]", `["db" "ping" "prod"]`},
		{"warning", "volumes[host]", `"/var/"`},
	} {
		if !out.has(f[0], "StatefulSet/db", f[1], f[2]) {
			t.Errorf("no finding %v in %+v", f, out.Findings)
		}
	}
	if text, err := json.Marshal(out); err != nil || strings.Contains(string(text), "hunter2") {
		t.Errorf("a secret was written: %s", text)
	}
}

const nginxConfig = `{"architecture":"amd64","config":{"User":"101:101","Entrypoint":["/entry"],"Cmd":["nginx"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:00"]}}`

// The configuration gives the digest, and the entrypoint that args follow.
func TestDeriveReadsTheImagesConfiguration(t *testing.T) {
	pod := func(image, more string) string {
		return "kind: Pod\nmetadata: {name: web}\nspec: {enableServiceLinks: false, containers: [{name: c, image: \"" + image + "\"" + more + "}]}\n"
	}
	d := newDesk(t)
	d.Write("nginx.json", []byte(nginxConfig))
	d.Write("named.json", []byte(strings.Replace(nginxConfig, "101:101", "nginx", 1)))
	pinned := "nginx:1@" + string(digestOf("a"))
	for name, tt := range map[string]struct{ image, more, config, run string }{
		"as it is":        {"nginx:1", "", "nginx.json", `{}`},
		"pinned":          {pinned, "", "nginx.json", `{}`},
		"args":            {"nginx:1", ", args: [x]", "nginx.json", `{"args":["/entry","x"]}`},
		"the same args":   {"nginx:1", ", args: [nginx]", "nginx.json", `{}`},
		"command":         {"nginx:1", ", command: [x]", "nginx.json", `{"args":["x"]}`},
		"group of a user": {"nginx:1", ", securityContext: {runAsGroup: 7}", "nginx.json", `{"user":"101:7"}`},
		"user":            {"nginx:1", ", securityContext: {runAsUser: 7}", "named.json", `{"user":"7"}`},
	} {
		t.Run(name, func(t *testing.T) {
			d.Stdin = pod(tt.image, tt.more)
			var out derived
			r := d.Must("derive - -o json --image-config " + tt.image + "=" + d.Path(tt.config))
			if err := json.Unmarshal([]byte(r.Out), &out); err != nil {
				t.Fatal(err)
			}
			image := out.Workloads[0].Images[0]
			if want := policy.DigestOf(d.Read(tt.config)); image.Digest != want || strings.Contains(image.Name, "@") {
				t.Errorf("digest %s, want %s; name %s", image.Digest, want, image.Name)
			}
			wantRun(t, image.Run, tt.run)
			if strings.Contains(r.Out, "warning") {
				t.Errorf("findings %+v", out.Findings)
			}
		})
	}
	d.Stdin = pod("nginx:1", "")
	if r := d.Must("derive - --image-config nginx:1=" + d.Path("named.json")); !strings.Contains(r.ErrOut, `"nginx" is a name`) {
		t.Errorf("said %s", r.ErrOut)
	}
	d.Write("manifest.json", []byte(`{"schemaVersion":2,"config":{"digest":"sha256:00"}}`))
	d.Refused(exit.Refused, "derive - --image-config nginx:1=@manifest.json", "names no layers")
	d.Refused(exit.Refused, "derive - --image-config nginx:1=@missing", "no such file")
	d.Refused(exit.Refused, "derive - --image-config other=@nginx.json", "no container uses")
	d.Refused(exit.Misuse, "derive - --image-config nginx:1", "IMAGE=FILE")
	d.Refused(exit.Misuse, "derive - --image-config nginx:1=@nginx.json --image nginx:1="+string(digestOf("a")), "both give a digest")
}

func TestDeriveRefusesWhatCannotBeListed(t *testing.T) {
	pod := "kind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: \"n@" + string(digestOf("a")) + "\", %s}]}\n"
	for more, want := range map[string]string{
		"securityContext: {capabilities: {add: [NOTHING]}}": "capability-unknown",
		"env: [{name: \"A=B\", value: x}]":                  "name-invalid",
		"workingDir: srv":                                   "path-invalid",
		"command: [\"\"]":                                   "text-invalid",
		"livenessProbe: {exec: {command: [\"\"]}}":          "text-invalid",
		"volumeDevices: [{devicePath: kvm}]":                "path-invalid",
	} {
		out := derive(t, exit.Refused, strings.Replace(pod, "%s", more, 1))
		if len(out.Workloads) != 0 || !out.has("error", "Pod/web", "containers[c]", want) {
			t.Errorf("%s: derived %+v", more, out)
		}
	}
	// What has no word is left out, said, and refused by nodes.
	out := derive(t, exit.OK, strings.Replace(pod, "%s", "volumeMounts: [{name: a, mountPath: /a}], readinessProbe: {httpGet: {port: web}}", 1))
	if !out.has("warning", "Pod/web", "containers[c]", `"/a"`) || !out.has("warning", "Pod/web", "containers[c]", `no port "web"`) {
		t.Errorf("findings %+v", out.Findings)
	}
}
