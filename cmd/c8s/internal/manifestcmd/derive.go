// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// The levels of findings. With an error there is no entry.
const (
	levelError   = "error"
	levelWarning = "warning"
	levelNote    = "note"
)

// finding is something that the entry does not say.
type finding struct {
	Level   string `json:"level"`
	Object  string `json:"object"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

func (f finding) String() string {
	at := f.Object
	if f.Field != "" {
		at += " " + f.Field
	}
	return fmt.Sprintf("%s: %s: %s", f.Level, at, f.Message)
}

// derived is the JSON output of derive.
type derived struct {
	Workloads []policy.Workload `json:"workloads"`
	Findings  []finding         `json:"findings"`
}

type deriveCommand struct {
	name       string
	images     []string
	configs    []string
	namespaces []string
	to, from   []string
	bootstrap  string
	output     desk.Output
}

func newDerive() *cobra.Command {
	var d deriveCommand
	c := &cobra.Command{
		Use:   "derive FILE",
		Short: "Draft a workload's entry from a Kubernetes manifest or a running pod",
		Long: `Reads Kubernetes objects (Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet,
Job, CronJob; YAML or JSON, several documents, lists) or a pod's description as
'c8s node --pods-dir' takes it, and writes the entries of the workloads that they
run: a JSON array on standard output, for 'c8s manifest add-workload --entries'.
FILE may be "-".

The entry says how each container may be started: command line, environment,
user, mounts, privileges, probes, as the pod says where it says more than the
image. Findings are written to standard error: an error means that no entry is
written, a warning that the entry gives much away or will refuse the pod, a note
what to look at.

An image counts by the digest of its configuration, which is not the digest that
references are pinned by. --image-config takes the configuration itself, as 'crane
config IMAGE' or 'skopeo inspect --config --raw docker://IMAGE' prints it: with it
derive also knows the image's own command line and user. What a cluster says of
its pods is a claim: compare digests with those of your build.

Exit codes: 0 drafted, 1 not without more information, 2 wrong usage.`,
		Example: `  c8s manifest derive shop.yaml | c8s manifest add-workload manifest.json --entries -

  # with the images' configurations
  crane config nginx:1.29 >nginx.json
  c8s manifest derive web.yaml --image-config nginx:1.29=nginx.json

  # an image of which only the digest is known
  c8s manifest derive web.yaml --image nginx:1.29=sha256:<64 digits> --to db:6379

  # C8s itself
  helm template c8s deploy/chart -f values.yaml | c8s manifest derive - --bootstrap c8s-node --image-config ...

  # what runs already
  kubectl get pod web-0 -o yaml | c8s manifest derive - -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return d.run(c, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&d.name, "name", "", "name of the entry (default: the object's)")
	f.StringArrayVar(&d.images, "image", nil, "digest of an image that is named without, as IMAGE=sha256:DIGEST (may be repeated)")
	f.StringArrayVar(&d.configs, "image-config", nil, "configuration of an image, as IMAGE=FILE (may be repeated)")
	f.StringArrayVar(&d.namespaces, "namespace", nil, "Kubernetes namespace that the pods must be in (may be repeated; default: the object's)")
	f.StringArrayVar(&d.to, "to", nil, "workload that it may connect to, as NAME:PORT[,PORT...], or with /udp behind it (may be repeated)")
	f.StringArrayVar(&d.from, "from", nil, "workload that may connect to it, as NAME:PORT[,PORT...], or with /udp behind it (may be repeated)")
	f.StringVar(&d.bootstrap, "bootstrap", "", "name of the entry that may start on a node where no daemon judges yet: the node daemon's own")
	d.output.Register(c)
	return c
}

func (d *deriveCommand) run(c *cobra.Command, path string) error {
	v, err := d.deriver(c)
	if err != nil {
		return err
	}
	text, err := desk.ReadInput(c, path, maxKubeInput)
	if err != nil {
		return fmt.Errorf("reading the Kubernetes manifest: %w", err)
	}
	objects, err := parseKube(text)
	if err != nil {
		return fmt.Errorf("reading the Kubernetes manifest: %s: %w", path, err)
	}
	out := v.derive(objects)
	if err := d.checkSingle(len(out.Workloads)); err != nil {
		return err
	}
	bad := slices.ContainsFunc(out.Findings, func(f finding) bool { return f.Level == levelError })
	if bad {
		out.Workloads = []policy.Workload{}
	}
	if err := d.write(c, out, bad); err != nil {
		return err
	}
	if bad {
		return fmt.Errorf("drafting the entries of %s: more information is needed, see the errors above", path)
	}
	return nil
}

func (d *deriveCommand) deriver(c *cobra.Command) (*deriver, error) {
	v := &deriver{name: d.name, namespaces: d.namespaces, bootstrap: d.bootstrap, given: map[string]policy.Digest{}, used: map[string]bool{}}
	images, err := parseImages(d.images)
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		if _, twice := v.given[i.Name]; twice {
			return nil, exit.Usage(fmt.Errorf("--image gives two digests for %s", i.Name))
		}
		v.given[i.Name] = i.Digest
	}
	if v.configs, err = readImageConfigs(c, d.configs); err != nil {
		return nil, err
	}
	for name := range v.configs {
		if _, twice := v.given[name]; twice {
			return nil, exit.Usage(fmt.Errorf("--image and --image-config both give a digest for %s", name))
		}
	}
	if v.to, err = parsePeers("--to", d.to); err != nil {
		return nil, err
	}
	v.from, err = parsePeers("--from", d.from)
	return v, err
}

// checkSingle: a name or a peer is of one workload.
func (d *deriveCommand) checkSingle(workloads int) error {
	if workloads > 1 && (d.name != "" || len(d.to)+len(d.from) > 0) {
		return exit.Usage(fmt.Errorf("--name, --to and --from are for one workload, and the file has %d: split it", workloads))
	}
	return nil
}

func (d *deriveCommand) write(c *cobra.Command, out derived, bad bool) error {
	if d.output.JSON() {
		return desk.WriteJSON(c.OutOrStdout(), out)
	}
	if !bad {
		if err := desk.WriteJSON(c.OutOrStdout(), out.Workloads); err != nil {
			return err
		}
	}
	return printFindings(c.ErrOrStderr(), out.Findings)
}

func printFindings[T fmt.Stringer](w io.Writer, findings []T) error {
	for _, f := range findings {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	return nil
}
