// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// deriver turns objects into entries. It never makes up a digest.
type deriver struct {
	name       string
	namespaces []string
	bootstrap  string // the entry that starts where no daemon judges yet
	to, from   []policy.PeerRule
	given      map[string]policy.Digest // by the image's name, from the flags
	configs    map[string]*imageConfig  // the same
	used       map[string]bool          // of both

	out    derived
	object string // the one being derived
}

func (v *deriver) derive(objects []kubeObject) derived {
	v.out = derived{Workloads: []policy.Workload{}, Findings: []finding{}}
	for i := range objects {
		v.object = objects[i].ref()
		v.add(&objects[i])
	}
	v.beforeDaemon()
	v.unused("--image", slices.Sorted(maps.Keys(v.given)))
	v.unused("--image-config", slices.Sorted(maps.Keys(v.configs)))
	if len(objects) == 0 || len(v.out.Workloads) == 0 && len(v.out.Findings) == 0 {
		v.object = "input"
		v.report(levelError, "", "it has no object that runs containers")
	}
	return v.out
}

// beforeDaemon marks the entry that starts without the daemon. Nobody narrows
// its seccomp profile then, so its rules must allow what that leaves open.
func (v *deriver) beforeDaemon() {
	if v.bootstrap == "" {
		return
	}
	v.object = "--bootstrap"
	i := slices.IndexFunc(v.out.Workloads, func(w policy.Workload) bool { return w.Name == v.bootstrap })
	if i < 0 {
		v.report(levelError, v.bootstrap, "no object gives an entry of this name")
		return
	}
	w := &v.out.Workloads[i]
	if !w.HostNetwork {
		v.report(levelError, v.bootstrap, "its pods are not in the node's network: they could not be locked before the daemon runs")
		return
	}
	w.Bootstrap = true
	for j := range w.Images {
		if w.Images[j].Run == nil {
			w.Images[j].Run = new(policy.Run)
		}
		w.Images[j].Run.Sockets = policy.SocketKinds()
	}
	v.report(levelWarning, v.bootstrap, "it starts whenever no daemon runs on its node, and may open every kind of socket (bootstrap): list nothing here that does not have to")
}

func (v *deriver) unused(flag string, names []string) {
	v.object = flag
	for _, name := range names {
		if !v.used[name] {
			v.report(levelError, name, "no container uses an image of this name; write it as the file does")
		}
	}
}

func (v *deriver) report(level, field, format string, args ...any) {
	v.out.Findings = append(v.out.Findings, finding{Level: level, Object: v.object, Field: field, Message: fmt.Sprintf(format, args...)})
}

func (v *deriver) add(o *kubeObject) {
	if o.Kind == "" && o.Netns != "" {
		v.finish(o, &policy.Workload{Name: o.Entry, Images: v.described(o)}, o.Name, o.Namespace)
		return
	}
	pod, err := o.pod()
	if err != nil {
		v.report(levelError, "spec", "%v", err)
		return
	}
	if pod == nil {
		v.skipped(o)
		return
	}
	running, err := o.running()
	if err != nil {
		v.report(levelError, "status", "%v", err)
		return
	}
	w := &policy.Workload{}
	for _, c := range pod.all() {
		if image, ok := v.image(c.at, c.Image, running[c.Name]); ok {
			image.Run = v.run(pod, c, v.configs[c.Image])
			addImage(w, image)
		}
		v.container(w, pod, c)
	}
	v.pod(w, pod)
	v.finish(o, w, podsName(o), o.Metadata.Namespace)
}

// skipped: most objects run nothing, but one of an unknown kind might.
func (v *deriver) skipped(o *kubeObject) {
	var c kubeController
	switch {
	case o.Kind == "":
		v.report(levelError, "", "it is neither a Kubernetes object nor a pod's description")
	case decodeNode(&o.Spec, &c) == nil && (c.Template != nil || c.JobTemplate.Spec.Template != nil):
		v.report(levelError, "", "pods of this kind are not known here; derive from one of its running pods")
	default:
		v.report(levelNote, "", "it runs no containers: skipped")
	}
}

// finish settles name, namespaces and peers, and adds the entry.
func (v *deriver) finish(o *kubeObject, w *policy.Workload, name, namespace string) {
	if w.Name == "" {
		w.Name = name
	}
	if v.name != "" {
		w.Name = v.name
	}
	if !isLabel(w.Name) {
		v.report(levelError, "name", "%q is no name for an entry (a DNS label); give one with --name", w.Name)
	}
	if slices.ContainsFunc(v.out.Workloads, func(other policy.Workload) bool { return other.Name == w.Name }) {
		v.report(levelError, "name", "another object gives an entry %q; derive the two apart, with --name", w.Name)
	}
	switch {
	case len(v.namespaces) > 0:
		w.Namespaces = v.namespaces
	case namespace != "" && !isLabel(namespace):
		v.report(levelError, "namespace", "%.100q is no name of a namespace", namespace)
	case namespace != "":
		w.Namespaces = []string{namespace}
	default:
		v.report(levelNote, "namespace", "none is named, so the entry is for all of them; narrow it with --namespace")
	}
	w.Peers = policy.Peers{To: v.to, From: v.from}
	if len(w.Images) == 0 {
		v.report(levelError, "", "it has no image")
	}
	if o.Status.IsZero() && o.Netns == "" {
		v.report(levelNote, "images", "digests must be those of the images' configurations, as the nodes' runtime reports them")
	} else {
		v.report(levelNote, "images", "digests are what the cluster says: compare them with those of your build")
	}
	v.out.Workloads = append(v.out.Workloads, filled(*w))
}

// filled has no null lists, which Parse would refuse.
func filled(w policy.Workload) policy.Workload {
	w.Images = append([]policy.Image{}, w.Images...)
	w.Namespaces = append([]string{}, w.Namespaces...)
	w.Peers.To = append([]policy.PeerRule{}, w.Peers.To...)
	w.Peers.From = append([]policy.PeerRule{}, w.Peers.From...)
	return w
}

// described reads the images of a pod's description, which have no names.
func (v *deriver) described(o *kubeObject) []policy.Image {
	w := &policy.Workload{}
	for i, text := range o.Images {
		if d := policy.Digest(text); d.Valid() {
			addImage(w, policy.Image{Name: o.Namespace + "/" + o.Name, Digest: d})
		} else {
			v.report(levelError, fmt.Sprintf("images[%d]", i), "%.100q is not sha256: and 64 lower-case hexadecimal digits", text)
		}
	}
	return w.Images
}

// image finds the digest of a container's image, that of its configuration:
// from the flags, the one it is named by, or what the running container was
// started from. The latter two may be an image's manifest's.
func (v *deriver) image(at, ref, imageID string) (policy.Image, bool) {
	at += ".image"
	name, pinned, isPinned := strings.Cut(ref, "@")
	given, isGiven := v.given[ref]
	config, isRead := v.configs[ref]
	v.used[ref] = true
	digest, running := policy.Digest(pinned), runningDigest(imageID)
	switch {
	case ref == "":
		v.report(levelError, at, "the container names no image")
		return policy.Image{}, false
	case !printable(name):
		v.report(levelError, at, "%.200q is no reference of an image", ref)
		return policy.Image{}, false
	case isPinned && !digest.Valid():
		v.report(levelError, at, "%.200q is pinned by something else than a SHA-256 digest", ref)
		return policy.Image{}, false
	case isRead:
		digest = config.digest
	case isGiven:
		digest = given
	case isPinned:
		if running.Valid() && running != digest {
			v.report(levelWarning, at, "the entry has the pinned digest, but the pod runs %s", running)
		}
		v.mayBeOfManifest(at, ref)
	case running.Valid():
		digest = running
		if strings.Contains(imageID, "@") {
			v.mayBeOfManifest(at, ref)
		}
	default:
		v.report(levelError, at, "%.200q is a tag, which may mean anything tomorrow; give the digest of its configuration with --image %s=sha256:..., or the configuration itself with --image-config ('crane config' prints it)", ref, ref)
		return policy.Image{}, false
	}
	return policy.Image{Name: name, Digest: digest}, true
}

func (v *deriver) mayBeOfManifest(at, ref string) {
	v.report(levelWarning, at, "references are pinned by the digest of the image's manifest, and entries list that of its configuration: unless they are the same here, give it (crane config %.200s >FILE; --image-config IMAGE=FILE)", ref)
}

// addImage leaves out rules that are there: containers may share an image.
func addImage(w *policy.Workload, image policy.Image) {
	if !slices.ContainsFunc(w.Images, func(i policy.Image) bool { return i.Digest == image.Digest && reflect.DeepEqual(i.Run, image.Run) }) {
		w.Images = append(w.Images, image)
	}
}

// runningDigest reads an imageID: NAME@DIGEST, a bare digest, or either with a
// runtime's scheme before it.
func runningDigest(imageID string) policy.Digest {
	if _, rest, ok := strings.Cut(imageID, "://"); ok {
		imageID = rest
	}
	return policy.Digest(imageID[strings.LastIndexByte(imageID, '@')+1:])
}

// podsName is the name of whatever made the pods, which they share.
func podsName(o *kubeObject) string {
	if o.Kind != "Pod" {
		return o.Metadata.Name
	}
	for _, label := range []string{"app.kubernetes.io/name", "app"} {
		if name := o.Metadata.Labels[label]; name != "" {
			return name
		}
	}
	if len(o.Metadata.OwnerReferences) > 0 {
		// A ReplicaSet has its Deployment's name with this hash; others of
		// its kind have none.
		return strings.TrimSuffix(o.Metadata.OwnerReferences[0].Name, "-"+o.Metadata.Labels["pod-template-hash"])
	}
	return o.Metadata.Name
}

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// isLabel follows RFC 1123, as package policy does.
func isLabel(s string) bool { return label.MatchString(s) }

func printable(s string) bool {
	return s != "" && len(s) <= 1024 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
