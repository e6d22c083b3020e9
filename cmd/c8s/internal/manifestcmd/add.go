// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

func newAddImage() *cobra.Command {
	var f desk.Destination
	var workload string
	var flags imageFlags
	c := &cobra.Command{
		Use:   "add-image MANIFEST --workload NAME --image NAME@sha256:DIGEST",
		Short: "Let a workload run another image too",
		Long: `Adds images to a workload's entry. The name of an image is for people: what
counts is the digest of its configuration, or a publisher's signature. Without
the flags about it a container runs as its image says and in no other way. The
images that were there stay accepted.

` + editInputs,
		Example: `  # let web run the new build beside the present one
  c8s manifest add-image manifest.signed.json -o next.json \
    --workload web --image registry.example.org/shop/web:2@sha256:<64 digits>

  # with a volume and another command line
  c8s manifest add-image manifest.json --workload web --image-config web:2=web.json \
    --arg /usr/bin/web --arg --verbose --mount /data=persistentVolume --service-env

  # whatever a publisher signs as that repository
  c8s manifest add-image manifest.json --workload web --signer vendor --repository registry.example.org/shop/web`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if workload == "" {
				return exit.Usage(errors.New("--workload is required, and --image or what describes one"))
			}
			parsed, err := flags.rules(c)
			if err != nil {
				return err
			}
			d, err := openDraft(c, args[0])
			if err != nil {
				return err
			}
			w, err := d.workload(workload)
			if err != nil {
				return err
			}
			w.Images = append(w.Images, parsed...)
			return d.save(c, &f)
		},
	}
	c.Flags().StringVar(&workload, "workload", "", "name of the entry (required)")
	flags.register(c)
	f.Register(c)
	return c
}

type addWorkload struct {
	edit     desk.Destination
	entry    policy.Workload
	images   imageFlags
	probes   []uint
	to, from []string
	entries  string
	mutual   bool
}

func newAddWorkload() *cobra.Command {
	var a addWorkload
	c := &cobra.Command{
		Use:   "add-workload MANIFEST (--name NAME --image NAME@sha256:DIGEST | --entries FILE)",
		Short: "Add a workload's entry",
		Long: `Adds one entry that the flags describe, or those that 'c8s manifest derive' wrote.
A connection needs a rule at both ends: with --mutual the other end's entry gets
the counterpart of every --to and --from.

` + editInputs,
		Example: `  c8s manifest add-workload manifest.json --name web --namespace shop --probe 8080 \
    --image registry.example.org/shop/web@sha256:<64 digits> --to db:6379 --mutual

  # what a Kubernetes manifest runs
  c8s manifest derive shop.yaml | c8s manifest add-workload manifest.json --entries -`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return a.run(c, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&a.entry.Name, "name", "", "name of the entry, a DNS label: it becomes the pods' name in the mesh")
	a.images.register(c)
	f.StringArrayVar(&a.entry.Namespaces, "namespace", nil, "Kubernetes namespace that its pods must be in (may be repeated; default: any)")
	f.StringArrayVar(&a.to, "to", nil, "workload that it may connect to, as NAME:PORT[,PORT...], or with /udp behind it (may be repeated)")
	f.StringArrayVar(&a.from, "from", nil, "workload that may connect to it, as NAME:PORT[,PORT...], or with /udp behind it (may be repeated)")
	f.UintSliceVar(&a.probes, "probe", nil, "TCP port that the kubelet's probes may connect to (may be repeated)")
	f.BoolVar(&a.entry.HostAccess, "host-access", false, "let processes of the node connect, on every port")
	f.BoolVar(&a.entry.HostNetwork, "host-network", false, "the entry is for pods in the node's network: outside the mesh")
	f.BoolVar(&a.mutual, "mutual", false, "add the counterpart of every --to and --from to the other end's entry")
	f.StringVar(&a.entries, "entries", "", "file with entries as 'c8s manifest derive' writes them, or -")
	a.edit.Register(c)
	return c
}

func (a *addWorkload) run(c *cobra.Command, path string) error {
	entries, err := a.wanted(c, path)
	if err != nil {
		return err
	}
	d, err := openDraft(c, path)
	if err != nil {
		return err
	}
	d.manifest.Workloads = append(d.manifest.Workloads, entries...)
	if a.mutual {
		for i := range entries {
			if err := d.mirror(&entries[i]); err != nil {
				return err
			}
		}
	}
	return d.save(c, &a.edit)
}

func (a *addWorkload) wanted(c *cobra.Command, path string) ([]policy.Workload, error) {
	if a.entries == "" {
		if a.entry.Name == "" || !a.images.given() {
			return nil, exit.Usage(errors.New("--name and --image are required, or --entries with a file of 'c8s manifest derive'"))
		}
		err := a.describe(c)
		return []policy.Workload{a.entry}, err
	}
	switch {
	case a.entry.Name != "" || a.images.given() || len(a.to)+len(a.from)+len(a.entry.Namespaces)+len(a.probes) > 0 || a.entry.HostAccess || a.entry.HostNetwork:
		return nil, exit.Usage(errors.New("--entries describes everything: leave out the flags about one entry, or give them to 'c8s manifest derive'"))
	case a.entries == desk.Stdio && path == desk.Stdio:
		return nil, exit.Usage(errors.New("MANIFEST and --entries cannot both be standard input"))
	}
	return readEntries(c, a.entries)
}

func (a *addWorkload) describe(c *cobra.Command) error {
	var err error
	if a.entry.Images, err = a.images.rules(c); err != nil {
		return err
	}
	for _, port := range a.probes {
		if port == 0 || port > math.MaxUint16 {
			return exit.Usage(fmt.Errorf("--probe must be from 1 to 65535, not %d", port))
		}
		a.entry.Probes = append(a.entry.Probes, uint16(port))
	}
	if a.entry.Peers.To, err = parsePeers("--to", a.to); err != nil {
		return err
	}
	a.entry.Peers.From, err = parsePeers("--from", a.from)
	return err
}

func readEntries(c *cobra.Command, path string) ([]policy.Workload, error) {
	text, err := desk.ReadInput(c, path, policy.MaxPayload)
	if err != nil {
		return nil, fmt.Errorf("reading the entries: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var entries []policy.Workload
	if err := dec.Decode(&entries); err != nil {
		return nil, fmt.Errorf("reading the entries: %s must be a JSON array of them, as 'c8s manifest derive' writes: %w", path, err)
	}
	if dec.More() {
		return nil, fmt.Errorf("reading the entries: %s has something after the array", path)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("reading the entries: %s has none", path)
	}
	return entries, nil
}

// mirror adds what the other ends of w's rules must say.
func (d *draft) mirror(w *policy.Workload) error {
	for _, r := range w.Peers.To {
		peer, err := d.workload(r.Workload)
		if err != nil {
			return err
		}
		peer.Peers.From = withRule(peer.Peers.From, w.Name, r)
	}
	for _, r := range w.Peers.From {
		peer, err := d.workload(r.Workload)
		if err != nil {
			return err
		}
		peer.Peers.To = withRule(peer.Peers.To, w.Name, r)
	}
	return nil
}

// withRule adds r's ports to the rule for name, or a rule.
func withRule(rules []policy.PeerRule, name string, r policy.PeerRule) []policy.PeerRule {
	for i := range rules {
		if rules[i].Workload != name || rules[i].Protocol != r.Protocol {
			continue
		}
		for _, port := range r.Ports {
			if !slices.Contains(rules[i].Ports, port) {
				rules[i].Ports = append(rules[i].Ports, port)
			}
		}
		return rules
	}
	return append(rules, policy.PeerRule{Workload: name, Ports: slices.Clone(r.Ports), Protocol: r.Protocol})
}

func parseImages(args []string) ([]policy.Image, error) {
	images := make([]policy.Image, 0, len(args))
	for _, arg := range args {
		image, ok := parseImage(arg)
		if !ok {
			return nil, exit.Usage(fmt.Errorf("--image must be NAME@sha256: and 64 lower-case hexadecimal digits, not %q", arg))
		}
		images = append(images, image)
	}
	return images, nil
}

// parseImage reads NAME@DIGEST, and NAME=DIGEST as 'init' writes it.
func parseImage(arg string) (policy.Image, bool) {
	i := strings.LastIndexAny(arg, "@=")
	if i <= 0 {
		return policy.Image{}, false
	}
	image := policy.Image{Name: arg[:i], Digest: policy.Digest(arg[i+1:])}
	return image, image.Digest.Valid()
}

func parsePeers(flag string, args []string) ([]policy.PeerRule, error) {
	rules := make([]policy.PeerRule, 0, len(args))
	for _, arg := range args {
		name, list, ok := strings.Cut(arg, ":")
		rule := policy.PeerRule{Workload: name, Protocol: policy.ProtocolTCP}
		if ports, udp := strings.CutSuffix(list, "/"+policy.ProtocolUDP); udp {
			list, rule.Protocol = ports, policy.ProtocolUDP
		}
		for _, text := range strings.Split(list, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			ok = ok && err == nil && port > 0
			rule.Ports = append(rule.Ports, uint16(port))
		}
		if !ok {
			return nil, exit.Usage(fmt.Errorf("%s must be NAME:PORT[,PORT...][/udp] like db:6379, not %q", flag, arg))
		}
		rules = append(rules, rule)
	}
	return rules, nil
}
