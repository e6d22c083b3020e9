// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// attacks is where the attackers have their pods.
const attacks = "attacks"

// evilRef is an image that no entry lists: the test program under another name.
const evilRef = "local.test/evil:1"

// The containers that attackers make of listed images start from these.
const (
	evil     = `{name: evil, image: "local.test/evil:1", imagePullPolicy: Never}`
	client   = `name: client, image: "local.test/app:1", imagePullPolicy: Never, args: [sleep]`
	stranger = `name: stranger, image: "local.test/app:1", imagePullPolicy: Never, args: [serve, -name, stranger]`
	nginx    = `name: nginx, image: "local.test/nginx:1", imagePullPolicy: Never`
)

// attempt is an object that somebody with the administrator's credentials
// makes, and how its containers are refused.
type attempt struct {
	name string
	code string // of the refusal; it stands in an event of a pod whose name begins with name
	yaml string // of the object
}

// pod is an attempt to start one; spec and annotations are in YAML's flow style.
func pod(name, code, spec string, annotations ...string) attempt {
	return podIn(attacks, name, code, spec, annotations...)
}

func podIn(namespace, name, code, spec string, annotations ...string) attempt {
	return attempt{name, code, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {attack: pod}, annotations: {%s}}
spec: {terminationGracePeriodSeconds: 1, automountServiceAccountToken: false, %s}
`, name, namespace, strings.Join(annotations, ", "), spec)}
}

// by is an attempt to have a controller start an image that is not listed.
func by(kind, version, spec string) attempt {
	name := "evil-" + strings.ToLower(kind)
	selector, restart := fmt.Sprintf("selector: {matchLabels: {app: %s}}, ", name), "Always"
	if kind == "Job" {
		selector, restart = "", "Never" // it makes its own selector
	}
	return attempt{name, "image-unlisted", fmt.Sprintf(`
apiVersion: %s
kind: %s
metadata: {name: %s, namespace: attacks}
spec: {%s%s template: {metadata: {labels: {app: %[3]s}}, spec: {restartPolicy: %[6]s, terminationGracePeriodSeconds: 1, containers: [%[7]s]}}}
`, version, kind, name, selector, spec, restart, evil)}
}

// testAttacks: with the administrator's credentials, and everything that API
// server, scheduler and kubelet can be told, no unlisted image starts and no
// listed one in another way than listed; every refusal says why.
func testAttacks(t *testing.T, s *Site) {
	ctx := t.Context()
	var err error
	s.evil, err = s.App.Reconfigure(evilRef, func(c *v1.Config) { c.Labels = map[string]string{"evil": "yes"} })
	must(t, err)
	must(t, s.Import(ctx, s.evil))
	must(t, s.Apply(ctx, "{apiVersion: v1, kind: Namespace, metadata: {name: attacks}}"))
	t.Cleanup(func() {
		for _, left := range [][]string{{"namespace", attacks}, {"runtimeclass", attacks}, {"pods", "-A", "-l", "attack=pod"}} {
			if _, err := s.Kubectl(context.WithoutCancel(ctx), append([]string{"delete"}, left...)...); err != nil {
				t.Error(err)
			}
		}
	})
	must(t, s.Apply(ctx, victim))
	attempts := slices.Concat(unlisted(), changed(),
		ownPods(t, "own-", s.Nodes[1], s.object(t, "daemonset/c8s-node"), nodeManners()),
		ownPods(t, "own-", s.Nodes[1], s.object(t, "statefulset/c8s-cds"), cdsManners()))
	s.try(t, append(attempts, pod("hook", "", "containers: [{"+nginx+", lifecycle: {postStart: {exec: {command: [/bin/sh, -c, id]}}}}]")))
	must(t, s.Rollout(ctx, "deployment/victim", "-n", attacks))
	t.Run("running pods", func(t *testing.T) { testRunning(t, s) })
	t.Run("reach", func(t *testing.T) { testReach(t, s) })
	t.Run("refusals", func(t *testing.T) { s.refused(t, attempts); s.hooked(t) })
	t.Run("lies", func(t *testing.T) { testLies(t, s) })
	t.Run("without the daemon", func(t *testing.T) { testAlone(t, s) })
}

// victim is a listed server whose pods attackers reach into.
const victim = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: victim, namespace: attacks}
spec:
  selector: {matchLabels: {app: victim}}
  template:
    metadata: {labels: {app: victim}}
    spec:
      nodeName: worker1
      terminationGracePeriodSeconds: 1
      containers: [{name: nginx, image: "local.test/nginx:1", imagePullPolicy: Never, readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}]
`

// unlisted are ways to start an image that no entry lists.
func unlisted() []attempt {
	const code = "image-unlisted"
	containers := "containers: [" + evil + "]"
	return []attempt{
		pod("evil-pod", code, containers),
		podIn("kube-system", "evil-system", code, containers+", priorityClassName: system-node-critical"),
		by("Deployment", "apps/v1", ""), by("ReplicaSet", "apps/v1", ""), by("DaemonSet", "apps/v1", ""),
		by("StatefulSet", "apps/v1", "serviceName: evil,"), by("Job", "batch/v1", ""),
		pod("evil-init", code, "initContainers: ["+evil+"], containers: [{"+client+"}]"),
		pod("evil-second-init", code, "initContainers: [{"+client+", restartPolicy: Always}, "+evil+"], containers: [{"+client+", name: main}]"),
		pod("evil-sidecar", code, "containers: [{"+client+"}, "+evil+"]"),
		pod("evil-privileged", code, `containers: [{name: evil, image: "local.test/evil:1", imagePullPolicy: Never, securityContext: {privileged: true}}]`),
		pod("evil-hostnetwork", code, "hostNetwork: true, "+containers),
		pod("evil-hostpid", code, "hostPID: true, "+containers),
		pod("evil-names-entry", code, containers, "c8s.dev/workload: client"),
		pod("evil-tolerates", code, containers, `c8s.dev/tolerate-missing-plugin: "true"`, `required-plugins.noderesource.dev: "[]"`),
		pod("evil-poses-as-c8s", code, "hostNetwork: true, hostPID: true, "+containers, "c8s.dev/workload: c8s-node", `c8s.dev/tolerate-missing-plugin: "true"`),
		pod("evil-command", code, `containers: [{name: evil, image: "local.test/evil:1", imagePullPolicy: Never, command: [/app], args: [sleep]}]`),
		pod("evil-volume", "mount-not-allowed", "containers: [{"+client+`, volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, image: {reference: "local.test/evil:1", pullPolicy: Never}}]`),
		{"evil-class", code, `
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: attacks}
handler: runc
---` + pod("evil-class", code, "runtimeClassName: attacks, "+containers).yaml},
	}
}

// changed are ways to start a listed image otherwise than its entry says.
func changed() []attempt {
	with := func(name, code, change string) attempt {
		return pod(name, code, "containers: [{"+client+", "+change+"}]")
	}
	mounting := func(name, volume, mount string) attempt {
		return pod(name, "mount-not-allowed", "containers: [{"+client+", volumeMounts: [{name: v, "+mount+"}]}], volumes: [{name: v, "+volume+"}]")
	}
	return []attempt{
		pod("args", "args-not-allowed", `containers: [{name: client, image: "local.test/app:1", imagePullPolicy: Never, args: [run, /app, env]}]`),
		pod("command", "args-not-allowed", `containers: [{name: client, image: "local.test/app:1", imagePullPolicy: Never, command: [/app, flood]}]`),
		pod("two-entries", "args-not-allowed", "containers: [{"+client+"}, {"+stranger+"}]"),
		pod("wrong-entry", "image-unlisted", "containers: [{"+client+"}]", "c8s.dev/workload: web"),
		with("env-preload", "env-not-allowed", "env: [{name: LD_PRELOAD, value: /tmp/x.so}]"),
		with("env-path", "env-not-allowed", "env: [{name: PATH, value: /tmp}]"),
		with("env-from", "env-not-allowed", "envFrom: [{configMapRef: {name: kube-root-ca.crt}}]"),
		with("user-root", "user-not-allowed", "securityContext: {runAsUser: 0}"),
		with("group", "user-not-allowed", "securityContext: {runAsGroup: 7}"),
		pod("fs-group", "group-not-allowed", "securityContext: {fsGroup: 7}, containers: [{"+client+"}]"),
		with("capability", "capability-not-allowed", "securityContext: {capabilities: {add: [NET_ADMIN]}}"),
		with("privileged", "mount-writable", "securityContext: {privileged: true}"),
		with("cwd", "cwd-not-allowed", "workingDir: /etc"),
		with("stdin", "stdin-not-allowed", "stdin: true"),
		with("tty", "stdin-not-allowed", "stdin: true, tty: true"),
		with("termination-log", "mount-not-allowed", "terminationMessagePath: /app"),
		pod("sysctl", "sysctl-not-allowed", "securityContext: {sysctls: [{name: net.ipv4.ip_local_port_range, value: 1024 2000}]}, containers: [{"+client+"}]"),
		pod("host-network", "host-network", "hostNetwork: true, containers: [{"+client+"}]"),
		pod("host-pid", "host-namespace-not-allowed", "hostPID: true, containers: [{"+client+"}]"),
		pod("host-ipc", "sandbox-setting", "hostIPC: true, containers: [{"+client+"}]"),
		mounting("mount-root", "hostPath: {path: /}", "mountPath: /host"),
		mounting("mount-over-program", "configMap: {name: kube-root-ca.crt}", "mountPath: /app, subPath: ca.crt"),
		mounting("mount-containerd", "hostPath: {path: /run/containerd}", "mountPath: /run/containerd"),
		mounting("mount-empty", "emptyDir: {}", "mountPath: /tmp"),
		mounting("mount-token", "projected: {sources: [{serviceAccountToken: {path: token}}]}", "mountPath: /var/run/token"),
		// What the kubelet runs in a container that may run is judged as an exec.
		pod("probe", "exec-not-allowed", "containers: [{"+nginx+", livenessProbe: {exec: {command: [/bin/sh, -c, id]}, periodSeconds: 1}}]"),
	}
}

// try makes all of them at once.
func (s *Site) try(t *testing.T, attempts []attempt) {
	t.Helper()
	var all strings.Builder
	for _, a := range attempts {
		all.WriteString(a.yaml + "\n---\n")
	}
	must(t, s.Apply(t.Context(), all.String()))
}

// event is what kubectl describe shows.
type event struct {
	Reason, Message string
	InvolvedObject  struct{ Namespace, Name string }
}

func (s *Site) events(ctx context.Context) ([]event, error) {
	out, err := s.Kubectl(ctx, "get", "events", "-A", "--field-selector=type=Warning", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []event }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("reading the events: %w", err)
	}
	return list.Items, nil
}

// explains reports whether a text is a refusal with its rule, what was expected
// and what was there.
func explains(text, code string) bool {
	for _, part := range []string{"refused (" + code, ") by ", ": expected ", ", got "} {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// refused waits until every attempt's refusal can be read, and then makes sure
// that nothing that was refused ever ran.
func (s *Site) refused(t *testing.T, attempts []attempt) {
	t.Helper()
	ctx := t.Context()
	err := s.until(ctx, "refusals in the pods' events", func() error {
		events, err := s.events(ctx)
		if err != nil {
			return err
		}
		var missing []string
		for _, a := range attempts {
			if !seen(events, a) {
				missing = append(missing, a.name+" ("+a.code+")")
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("not seen: %s", strings.Join(missing, ", "))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
		events, _ := s.events(ctx)
		for _, a := range attempts {
			if !seen(events, a) {
				t.Logf("%s: %v", a.name, slices.DeleteFunc(slices.Clone(events), func(e event) bool { return !strings.HasPrefix(e.InvolvedObject.Name, a.name) }))
			}
		}
	}
	ran, err := s.ran(ctx, "evil")
	must(t, err)
	if len(ran) > 0 {
		t.Errorf("unlisted containers that ran: %v", ran)
	}
}

// hooked: of a hook the kubelet only tells that it failed, so the reason is in the
// daemon's log alone.
func (s *Site) hooked(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	must(t, s.until(ctx, "the refusal of a hook", func() error {
		id, err := s.Kubectl(ctx, "get", "pod", "-n", attacks, "hook", "-o", "jsonpath={.status.containerStatuses[0].lastState.terminated.containerID}")
		if err != nil {
			return err
		}
		said, err := s.Kubectl(ctx, "logs", "-n", systemNamespace, "-l", "app.kubernetes.io/component=node", "-c", "node", "--tail=-1")
		if err != nil {
			return err
		}
		id = strings.TrimPrefix(id, "containerd://")
		for line := range strings.Lines(said) {
			if id != "" && strings.Contains(line, id) && explains(line, "exec-not-allowed") {
				return nil
			}
		}
		return fmt.Errorf("nothing is said of container %q", id)
	}))
}

func seen(events []event, a attempt) bool {
	for _, e := range events {
		if strings.HasPrefix(e.InvolvedObject.Name, a.name) && explains(e.Message, a.code) {
			return true
		}
	}
	return false
}

// ran names the pods in which a container of this name ran.
func (s *Site) ran(ctx context.Context, container string) ([]string, error) {
	out, err := s.Kubectl(ctx, "get", "pods", "-A", "-o", "json")
	if err != nil {
		return nil, err
	}
	type state struct {
		Running    *struct{}
		Terminated *struct{ Reason string }
	}
	type status struct {
		Name             string
		State, LastState state
	}
	var list struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Status   struct{ InitContainerStatuses, ContainerStatuses, EphemeralContainerStatuses []status }
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("reading the pods: %w", err)
	}
	// That of a container that the runtime did not start.
	started := func(s state) bool {
		return s.Running != nil || s.Terminated != nil && s.Terminated.Reason != "StartError" && s.Terminated.Reason != "ContainerStatusUnknown"
	}
	var ran []string
	for _, p := range list.Items {
		for _, of := range [][]status{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
			for _, c := range of {
				if c.Name == container && (started(c.State) || started(c.LastState)) {
					ran = append(ran, p.Metadata.Namespace+"/"+p.Metadata.Name)
				}
			}
		}
	}
	return ran, nil
}
