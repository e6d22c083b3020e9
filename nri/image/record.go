// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/c8s-dev/c8s/policy"
)

// The names under which containerd's CRI plugin keeps what it was asked for
// beside a container.
const (
	containerExtension = "io.cri-containerd.container.metadata"
	sandboxExtension   = "io.cri-containerd.sandbox.metadata"
	recordVersion      = "v1"
)

// Record is what the kubelet asked containerd for, where only this tells: an
// open stdin is in no OCI configuration. The zero value is that of a container
// that did not come from the kubelet.
type Record struct {
	Sandbox   bool          // it is a pod's sandbox (pause)
	SandboxID string        // of the pod it belongs to; a sandbox's own
	ImageID   policy.Digest // config digest that containerd chose; Container checks it
	Stdin     bool          // the kubelet can type into it
	TTY       bool
}

func recordOf(id string, extensions map[string]*anypb.Any) (Record, error) {
	container, sandbox := extensions[containerExtension], extensions[sandboxExtension]
	switch {
	case container != nil && sandbox != nil:
		return Record{}, errors.New("it is recorded as a container and as a sandbox")
	case container != nil:
		return parseRecord(container.GetValue())
	case sandbox != nil:
		return Record{Sandbox: true, SandboxID: id}, nil
	}
	return Record{}, nil
}

// parseRecord reads containerd's own JSON (internal/cri/store/container,
// Metadata); an absent stdin is how it writes a closed one.
func parseRecord(b []byte) (Record, error) {
	var v struct {
		Version  string
		Metadata *struct {
			SandboxID string
			ImageRef  string
			Config    *struct {
				Stdin bool `json:"stdin"`
				TTY   bool `json:"tty"`
			}
		}
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return Record{}, err
	}
	if v.Version != recordVersion || v.Metadata == nil || v.Metadata.Config == nil {
		return Record{}, fmt.Errorf("its record has version %.20q, or lacks parts of version %s: this containerd is newer than this program", v.Version, recordVersion)
	}
	r := Record{SandboxID: v.Metadata.SandboxID, Stdin: v.Metadata.Config.Stdin, TTY: v.Metadata.Config.TTY}
	if d := policy.Digest(v.Metadata.ImageRef); d.Valid() {
		r.ImageID = d
	}
	return r, nil
}
