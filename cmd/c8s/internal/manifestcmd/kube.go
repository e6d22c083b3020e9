// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Caps on what derive reads. A list counts as its items.
const (
	maxKubeInput   = 4 << 20 // bytes
	maxKubeObjects = 1000
)

// kubeObject is what derive needs of any Kubernetes object, and of a pod's
// description for --pods-dir. All else is ignored.
type kubeObject struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name            string            `yaml:"name"`
		GenerateName    string            `yaml:"generateName"`
		Namespace       string            `yaml:"namespace"`
		Labels          map[string]string `yaml:"labels"`
		OwnerReferences []struct {
			Kind string `yaml:"kind"`
			Name string `yaml:"name"`
		} `yaml:"ownerReferences"`
	} `yaml:"metadata"`
	Spec   yaml.Node   `yaml:"spec"`
	Status yaml.Node   `yaml:"status"`
	Items  []yaml.Node `yaml:"items"`

	Netns     string   `yaml:"netns"`
	Namespace string   `yaml:"namespace"`
	Name      string   `yaml:"name"`
	Entry     string   `yaml:"entry"`
	Images    []string `yaml:"images"`
}

type kubePodTemplate struct {
	Spec kubePodSpec `yaml:"spec"`
}

// kubeController is the spec of everything that makes pods.
type kubeController struct {
	Template    *kubePodTemplate `yaml:"template"`
	JobTemplate struct {
		Spec struct {
			Template *kubePodTemplate `yaml:"template"`
		} `yaml:"spec"`
	} `yaml:"jobTemplate"`
	VolumeClaimTemplates []struct {
		Metadata struct {
			Name string `yaml:"name"`
		} `yaml:"metadata"`
	} `yaml:"volumeClaimTemplates"`
}

type kubePodStatus struct {
	ContainerStatuses          []kubeContainerStatus `yaml:"containerStatuses"`
	InitContainerStatuses      []kubeContainerStatus `yaml:"initContainerStatuses"`
	EphemeralContainerStatuses []kubeContainerStatus `yaml:"ephemeralContainerStatuses"`
}

type kubeContainerStatus struct {
	Name    string `yaml:"name"`
	ImageID string `yaml:"imageID"`
}

// parseKube reads YAML or JSON, several documents and lists.
func parseKube(text []byte) ([]kubeObject, error) {
	if len(text) > maxKubeInput {
		return nil, fmt.Errorf("it is larger than %d bytes: derive from fewer objects at a time", maxKubeInput)
	}
	if json.Valid(text) { // YAML does not take all of JSON's tabs
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil {
			return nil, err
		}
		text = compact.Bytes()
	}
	var objects []kubeObject
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var o kubeObject
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("it is not a Kubernetes manifest: %w", err)
		}
		if objects, err = appendObjects(objects, o); err != nil {
			return nil, err
		}
		if len(objects) > maxKubeObjects {
			return nil, fmt.Errorf("it has more than %d objects: derive from fewer at a time", maxKubeObjects)
		}
	}
}

func appendObjects(objects []kubeObject, o kubeObject) ([]kubeObject, error) {
	if o.Kind != "List" && o.Kind != "PodList" {
		return append(objects, o), nil
	}
	for i := range o.Items {
		var item kubeObject
		if err := o.Items[i].Decode(&item); err != nil {
			return nil, fmt.Errorf("item %d of a list is not a Kubernetes object: %w", i, err)
		}
		objects = append(objects, item)
	}
	return objects, nil
}

// pod returns what the object's pods look like, or nil when it makes none that
// derive knows of.
func (o *kubeObject) pod() (*kubePodSpec, error) {
	switch o.Kind {
	case "Pod":
		spec := &kubePodSpec{}
		return spec, decodeNode(&o.Spec, spec)
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob":
		var c kubeController
		if err := decodeNode(&o.Spec, &c); err != nil {
			return nil, err
		}
		if o.Kind == "CronJob" {
			c.Template = c.JobTemplate.Spec.Template
		}
		if c.Template == nil {
			return nil, errors.New("it has no pod template")
		}
		for _, t := range c.VolumeClaimTemplates {
			c.Template.Spec.claims = append(c.Template.Spec.claims, t.Metadata.Name)
		}
		return &c.Template.Spec, nil
	}
	return nil, nil
}

// running returns what a running pod's containers were started from.
func (o *kubeObject) running() (map[string]string, error) {
	var s kubePodStatus
	if o.Kind != "Pod" || o.Status.IsZero() {
		return nil, nil
	}
	if err := decodeNode(&o.Status, &s); err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, list := range [][]kubeContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for _, c := range list {
			ids[c.Name] = c.ImageID
		}
	}
	return ids, nil
}

func decodeNode(n *yaml.Node, into any) error {
	if n.IsZero() {
		return nil
	}
	return n.Decode(into)
}

// ref names the object as kubectl does.
func (o *kubeObject) ref() string {
	switch {
	case o.Netns != "":
		return "pod " + o.Namespace + "/" + o.Name
	case o.Metadata.Name != "":
		return o.Kind + "/" + o.Metadata.Name
	}
	return o.Kind + "/" + o.Metadata.GenerateName
}
