// SPDX-License-Identifier: Apache-2.0

package nri_test

import (
	"fmt"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
	stackimage "github.com/c8s-dev/c8s/test/stack/image"
)

// required is the drop-in that has containerd refuse containers without the
// plugin.
const required = `version = 4
[plugins.'io.containerd.nri.v1.nri'.default_validator]
  enable = true
  required_plugins = ['c8s']
`

func containerds() map[string]string {
	return map[string]string{"NRI 0.12.3": stack.ContainerdStock, "NRI 0.12.5": stack.ContainerdNRI5}
}

// A plugin that dies or hangs within a request is passed over by some versions
// of NRI. What it would have refused is then refused by c8s-runtime.
func TestAPluginThatFailsWithinARequestLetsNothingStart(t *testing.T) {
	for name, containerd := range containerds() {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, stack.NodeConfig{Containerd: containerd})
			d, runtime := n.serve(n.manifest())
			p := n.pod(stack.PodSpec{Name: "web"})
			for what, fail := range map[string]func(){"hangs": func() {}, "dies": d.relay.Drop} {
				asked, release := runtime.hold()
				done := make(chan error, 1)
				go func() {
					_, err := p.Run(t.Context(), stack.ContainerSpec{Name: what, Image: stackimage.AppRef, Args: []string{"run", "/app", "env"}})
					done <- err
				}()
				<-asked
				fail()
				err := <-done
				release()
				runtime.answer()
				refused(t, err)
				t.Logf("%s, the plugin %s: %v", name, what, err)
				n.eventually("the plugin is back", d.plugin.Connected)
			}
			n.run(p, "after", "sleep")
		})
	}
}

func TestWithoutThePluginNoContainerStarts(t *testing.T) {
	n := newNode(t, stack.NodeConfig{ExtraConfig: map[string]string{"c8s.toml": required}})
	d, _ := n.serve(n.manifest())
	p := n.pod(stack.PodSpec{Name: "web"})
	n.run(p, "before", "sleep")
	d.end()
	for i := 0; ; i++ { // containerd may yet have to notice that the plugin left
		_, err := p.Run(t.Context(), stack.ContainerSpec{Name: fmt.Sprint("without", i), Image: stackimage.AppRef, Args: []string{"sleep"}})
		refused(t, err)
		if strings.Contains(err.Error(), `required plugin "c8s" not present`) {
			break
		}
		if i == 20 {
			t.Fatal(err)
		}
	}
	_, err := n.cri.RunPod(t.Context(), stack.PodSpec{Name: "other"})
	refused(t, err, "daemon-not-running") // NRI's validator does not look at sandboxes
}

func TestThePluginSurvivesARestartOfContainerd(t *testing.T) {
	n := newNode(t, stack.NodeConfig{ExtraConfig: map[string]string{"c8s.toml": required}})
	d, _ := n.serve(n.manifest())
	p := n.pod(stack.PodSpec{Name: "web"})
	c := n.run(p, "before", "sleep")
	if err := n.RestartContainerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.eventually("the plugin is back", d.plugin.Connected)
	n.running(c, true)
	n.run(p, "after", "sleep")
	_, err := p.Run(t.Context(), stack.ContainerSpec{Name: "bad", Image: stackimage.AppRef, Args: []string{"env"}})
	refused(t, err, "args-not-allowed")
}

// running waits until a container does, or does not, run.
func (n *node) running(c *stack.Container, want bool) {
	n.t.Helper()
	n.eventually("the container's state", func() bool {
		s, err := c.Status(n.t.Context())
		return err == nil && (s.State == cri.ContainerState_CONTAINER_RUNNING) == want
	})
}

// A daemon finds pods that a manifest listed which is no longer in force.
func TestADaemonThatStartsStopsOrCutsWhatIsNotListed(t *testing.T) {
	for _, how := range []string{policy.UnlistedStop, policy.UnlistedCut} {
		t.Run(how, func(t *testing.T) {
			n := newNode(t, stack.NodeConfig{})
			before, _ := n.serve(n.manifest())
			listed := n.run(n.pod(stack.PodSpec{Name: "listed"}), "main", "sleep")
			other := n.run(n.pod(stack.PodSpec{Name: "unlisted"}), "main", "serve")
			before.end()

			after, _ := n.serve(n.manifest(func(m *policy.Manifest) {
				m.Unlisted, m.Workloads[0].Images = how, m.Workloads[0].Images[:1] // sleep alone
			}))
			events := n.watch(after)
			if e := <-events; e.Removed || e.Pod.Name != "listed" {
				t.Errorf("%+v", e)
			}
			n.running(other, how == policy.UnlistedCut)
			n.running(listed, true)
			if _, err := listed.Exec(t.Context(), "/app", "env"); err != nil {
				t.Errorf("the listed one is not known: %v", err)
			}
			after.Manifest(n.manifest(func(m *policy.Manifest) { m.Unlisted, m.Workloads = how, nil }))
			if e := <-events; !e.Removed || e.Pod.Name != "listed" || e.Reason == "" {
				t.Errorf("%+v", e)
			}
			n.running(listed, how == policy.UnlistedCut)
		})
	}
}
