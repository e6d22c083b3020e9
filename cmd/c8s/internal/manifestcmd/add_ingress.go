// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

func newAddIngress() *cobra.Command {
	var f desk.Destination
	var name string
	var hosts, backends []string
	c := &cobra.Command{
		Use:   "add-ingress MANIFEST --name NAME [--host HOST]... [--backend WORKLOAD:PORT[,PORT...][/tcp]]...",
		Short: "Say which workloads answer for a host",
		Long: `Adds a rule for requests that clients outside the mesh send to an ingress, or hosts
and backends to the rule of that name. All backends of a rule are trusted the same
for all its hosts. No peer rule is needed beside it; the machines of an ingress
need a substrate with the role ingress.

` + editInputs,
		Example: `  c8s manifest add-ingress manifest.json --name bank --host bank.example --backend web:8080

  # one more name, and a database by CONNECT
  c8s manifest add-ingress manifest.signed.json -o next.json --name bank --host '*.bank.example' --backend db:5432/tcp`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if name == "" || len(hosts)+len(backends) == 0 {
				return exit.Usage(errors.New("--name is required, and --host or --backend"))
			}
			parsed, err := parseBackends(backends)
			if err != nil {
				return err
			}
			d, err := openDraft(c, args[0])
			if err != nil {
				return err
			}
			rule := d.ingress(name)
			rule.Hosts = append(rule.Hosts, hosts...)
			for _, b := range parsed {
				rule.Backends = withBackend(rule.Backends, b)
			}
			return d.save(c, &f)
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the rule, a DNS label (required)")
	c.Flags().StringArrayVar(&hosts, "host", nil, `name that clients ask for, "bank.example", or "*.bank.example" for exactly one label more (may be repeated)`)
	c.Flags().StringArrayVar(&backends, "backend", nil, "workload that answers, as NAME:PORT[,PORT...], or with /tcp behind it for CONNECT (may be repeated)")
	f.Register(c)
	return c
}

// ingress returns the rule of that name, or a new one.
func (d *draft) ingress(name string) *policy.IngressRule {
	rules := &d.manifest.Ingress
	i := slices.IndexFunc(*rules, func(r policy.IngressRule) bool { return r.Name == name })
	if i < 0 {
		i, *rules = len(*rules), append(*rules, policy.IngressRule{Name: name})
	}
	return &(*rules)[i]
}

// withBackend adds b's ports to the backend of its workload and mode, or b.
func withBackend(list []policy.IngressBackend, b policy.IngressBackend) []policy.IngressBackend {
	for i := range list {
		if list[i].Workload != b.Workload || list[i].Mode != b.Mode {
			continue
		}
		for _, port := range b.Ports {
			if !slices.Contains(list[i].Ports, port) {
				list[i].Ports = append(list[i].Ports, port)
			}
		}
		return list
	}
	return append(list, b)
}

func parseBackends(args []string) ([]policy.IngressBackend, error) {
	list := make([]policy.IngressBackend, 0, len(args))
	for _, arg := range args {
		name, ports, ok := strings.Cut(arg, ":")
		b := policy.IngressBackend{Workload: name, Mode: policy.ModeHTTP}
		ports, mode, given := strings.Cut(ports, "/")
		if given {
			b.Mode = mode
		}
		ok = ok && (b.Mode == policy.ModeHTTP || b.Mode == policy.ModeTCP)
		for _, text := range strings.Split(ports, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			ok = ok && err == nil && port > 0
			b.Ports = append(b.Ports, uint16(port))
		}
		if !ok {
			return nil, exit.Usage(fmt.Errorf("--backend must be NAME:PORT[,PORT...][/http|/tcp] like web:8080, not %q", arg))
		}
		list = append(list, b)
	}
	return list, nil
}
