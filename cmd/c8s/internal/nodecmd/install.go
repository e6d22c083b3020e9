// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/policy"
)

// The programs that come onto the node, and how large they may be.
const (
	runtimeProgram = "c8s-runtime"
	aloneProgram   = "c8s-runtime-alone"
	cniProgram     = "c8s-cni"
	maxProgram     = 128 << 20
	maxManifest    = 2 * policy.MaxPayload
)

type installFlags struct {
	layout    layoutFlags
	restart   restartFlags
	from      string
	operators string
	manifest  string
	dryRun    bool
}

func newInstall() *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "install",
		Short: "Put C8s between containerd and everything it starts on this node",
		Long: `Change the node's files so that nothing starts on it unless the operators'
signed manifest says so:

  c8s-runtime  becomes the program behind every runtime of containerd
  c8s-cni      becomes the last plugin of the pods' network
  containerd   gets a drop-in for that, with NRI and its validator

What was there is kept; 'c8s node uninstall' gives every byte back. Installing
again changes only what is not as it should be, and neither the operators that
the node has nor their newer manifest. From the restart of containerd
on, only containers of entries with "bootstrap" start until the node daemon
runs.`,
		Example: `  c8s node install --operators operators.json --manifest manifest.signed.json --dry-run
  c8s node install --operators operators.json --manifest manifest.signed.json --restart-containerd`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	f.layout.register(c)
	f.restart.register(c)
	fl := c.Flags()
	fl.StringVar(&f.operators, "operators", "", "JSON file with the operators' keys and threshold: the trust anchor (required)")
	fl.StringVar(&f.manifest, "manifest", "", "operator-signed manifest to start from (required)")
	fl.StringVar(&f.from, "from", "", "folder with the programs c8s-runtime, c8s-runtime-alone and c8s-cni (default: beside this program)")
	fl.StringVar(&f.layout.Runc, "runc", "", "the runtime that really starts containers (default: as containerd's configuration says)")
	fl.StringVar(&f.layout.StateDir, "state-dir", f.layout.StateDir, "state folder of the node daemon")
	fl.StringVar(&f.layout.Kubelet, "kubelet-dir", "", "the kubelet's folder, where it is not /var/lib/kubelet")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print what would change, and change nothing")
	return c
}

func (f *installFlags) run(c *cobra.Command) error {
	files, err := f.files()
	if err != nil {
		return err
	}
	kept, err := f.keepTrust(&files)
	if err != nil {
		return err
	}
	node, err := f.layout.open()
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	for _, what := range kept {
		if _, err := fmt.Fprintln(out, what); err != nil {
			return err
		}
	}
	if f.dryRun {
		plan, err := node.Plan(files)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, plan.Diff()); err != nil {
			return err
		}
		return sayPlan(out, plan, "would change")
	}
	plan, err := node.Install(files)
	if err != nil {
		return err
	}
	if err := sayPlan(out, plan, "changed"); err != nil {
		return err
	}
	if f.restart.do {
		if err := f.restart.restart(c.Context(), f.layout); err != nil {
			return fmt.Errorf("C8s is installed and not in force: %w; %s", err, remedyRestart)
		}
		_, err := fmt.Fprintln(out, "containerd was restarted; 'c8s node check' says what holds")
		return err
	}
	_, err = fmt.Fprintf(out, "not in force before containerd reads its configuration: %s\n", remedyRestart)
	return err
}

func sayPlan(out io.Writer, plan *host.Plan, verb string) error {
	_, err := fmt.Fprintf(out, "%d files %s\n", plan.Count(), verb)
	for _, file := range plan.Overwritten() {
		_, more := fmt.Fprintf(out, "%s had been changed by others; what they wrote %s\n", file, verb)
		err = errors.Join(err, more)
	}
	if !plan.Network {
		_, more := fmt.Fprintln(out, "the node has no network configuration yet; the node daemon chains c8s-cni when it comes")
		err = errors.Join(err, more)
	}
	return err
}

// files reads what comes onto the node. A manifest that its operators did not
// sign is refused here, before it makes a node refuse everything.
func (f *installFlags) files() (host.Files, error) {
	var out host.Files
	for _, need := range [][2]string{{"operators", f.operators}, {"manifest", f.manifest}} {
		if need[1] == "" {
			return out, exit.Usage(fmt.Errorf("--%s is required", need[0]))
		}
	}
	operators, err := desk.ReadOperators(f.operators)
	if err != nil {
		return out, err
	}
	if out.Manifest, err = desk.ReadFile(f.manifest, maxManifest); err != nil {
		return out, fmt.Errorf("reading the manifest: %w", err)
	}
	if _, err := policy.Open(out.Manifest, operators); err != nil {
		return out, fmt.Errorf("%s: %w", f.manifest, err)
	}
	if out.Operators, err = os.ReadFile(f.operators); err != nil {
		return out, fmt.Errorf("reading the operators: %w", err)
	}
	from := f.from
	if from == "" {
		self, err := os.Executable()
		if err != nil {
			return out, fmt.Errorf("finding the programs to install: %w", err)
		}
		from = filepath.Dir(self)
	}
	if out.Runtime, err = readProgram(from, runtimeProgram); err != nil {
		return out, err
	}
	if out.Alone, err = readProgram(from, aloneProgram); err != nil {
		return out, err
	}
	out.CNI, err = readProgram(from, cniProgram)
	return out, err
}

func readProgram(dir, name string) ([]byte, error) {
	data, err := desk.ReadFile(filepath.Join(dir, name), maxProgram)
	if err == nil && (len(data) == 0 || len(data) > maxProgram) {
		err = fmt.Errorf("%d bytes are no program", len(data))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the program %s to install: %w; say with --from where it is", name, err)
	}
	return data, nil
}
