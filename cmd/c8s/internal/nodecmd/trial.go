// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/host/ctrd"
	"github.com/c8s-dev/c8s/policy"
)

// The findings of a trial.
const (
	triedWhole    = "tried: to the end"
	triedSandbox  = "tried: a pod's sandbox"
	triedUnlisted = "tried: an image that no manifest lists"
	triedWaived   = "tried: the same in a pod that waives NRI's validator"
	triedCommand  = "tried: a listed image with another command"
)

func (f *checkFlags) trial(ctx context.Context, client *ctrd.Client) []host.Finding {
	listed, err := f.listedImages()
	if err != nil {
		return []host.Finding{host.Undecided(triedSandbox, "the installed manifest", err, "run 'c8s node install' again")}
	}
	out, err := client.Try(ctx, ctrd.Trial{Listed: listed, Waive: host.TolerateAnnotation, Now: time.Now})
	all := judgeTrial(out)
	if err != nil {
		all = append(all, host.Undecided(triedWhole, "all tries made, and nothing left of them", err, "try again; look for pods and images named c8s-node-check"))
	}
	return all
}

// listedImages are the configuration digests in the installed manifest.
func (f *checkFlags) listedImages() ([]string, error) {
	operators, err := desk.ReadOperators(filepath.Join(f.layout.Root, host.Operators))
	if err != nil {
		return nil, err
	}
	envelope, err := desk.ReadFile(filepath.Join(f.layout.Root, host.Manifest), maxManifest)
	if err != nil {
		return nil, fmt.Errorf("reading the installed manifest: %w", err)
	}
	signed, err := policy.Open(envelope, operators)
	if err != nil {
		return nil, err
	}
	var digests []string
	for _, w := range signed.Manifest.Workloads {
		for _, image := range w.Images {
			digests = append(digests, string(image.Digest))
		}
	}
	return digests, nil
}

// judgeTrial says what a trial proved. A sandbox that C8s refuses is as good a
// proof that nothing starts as a container that it refuses.
func judgeTrial(out ctrd.Outcome) []host.Finding {
	const expected = "a refusal by C8s"
	if out.Sandbox == nil || out.Sandbox.Step != "" {
		none := errors.New("no sandbox to try it in")
		remedy := "start the node daemon, list the pause image in the manifest's sandboxes, and try again"
		return []host.Finding{
			judgeSandbox(out.Sandbox), host.Undecided(triedUnlisted, expected, none, remedy),
			host.Undecided(triedWaived, expected, none, remedy), host.Undecided(triedCommand, expected, none, remedy),
		}
	}
	all := []host.Finding{host.Judge(triedSandbox, true, "a sandbox, or a refusal by C8s", "made, since its image is listed", "")}
	untried := errors.New("it was not tried")
	all = append(all, refused(triedUnlisted, out.Unlisted, untried), refused(triedWaived, out.Waived, untried))
	return append(all, refused(triedCommand, out.Command, errors.New("the node has no image that the installed manifest lists by digest")))
}

func judgeSandbox(r *ctrd.Refused) host.Finding {
	const expected = "a sandbox, or a refusal by C8s"
	switch {
	case r == nil:
		return host.Undecided(triedSandbox, expected, errors.New("it was not tried"), "")
	case r.By() == "":
		return host.Undecided(triedSandbox, expected, errors.New(said(*r)), "make ordinary pods work on this node first")
	}
	return host.Judge(triedSandbox, true, expected, said(*r), "")
}

func refused(name string, r *ctrd.Refused, why error) host.Finding {
	const expected = "a refusal by C8s"
	switch {
	case r == nil:
		return host.Undecided(name, expected, why, "")
	case r.Step == "":
		return host.Judge(name, false, expected, "it was started", "see the findings above; until they pass, this node starts anything")
	case r.By() == "":
		return host.Judge(name, false, expected, "something else refused: "+said(*r), "see the findings above")
	}
	return host.Judge(name, true, expected, said(*r), "")
}

func said(r ctrd.Refused) string {
	if by := r.By(); by != "" {
		return fmt.Sprintf("%s refused at %s: %s", by, r.Step, r.Text)
	}
	return fmt.Sprintf("%s: %s", r.Step, r.Text)
}
