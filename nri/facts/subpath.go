// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"path"
	"strconv"
	"strings"
)

// A volume's subPath reaches the runtime as <pod>/volume-subpaths/<volume>/
// <container>/<index>, a place where the kubelet bound it. What it bound could
// be a path of the node as well, so the mount table is asked.

// subPath tells the kind of the volume that lies behind a bound path, or ""
// when it is not in one of this pod's volumes.
func (n *Node) subPath(source string, pod Pod) string {
	if n.Mounts == nil {
		return ""
	}
	table, err := n.Mounts()
	if err != nil {
		return ""
	}
	mounts := parseMounts(table)
	for _, origin := range mounts.origins(source) {
		rest, ok := below(path.Join(n.podFolder(pod), "volumes"), origin)
		parts := strings.Split(rest, "/")
		if !ok || len(parts) < 2 {
			continue
		}
		volume := path.Join(n.podFolder(pod), "volumes", parts[0], parts[1])
		var more []string
		if strings.HasSuffix(parts[0], "~csi") && len(parts) > 2 {
			more = parts[2:3]
			volume = path.Join(volume, parts[2])
		}
		return n.volume(parts[0], more, volume)
	}
	return ""
}

// behind is the path of the node that the kubelet bound in the pod's folder, of
// which rules speak; "" where nothing of it is outside of that folder.
func (n *Node) behind(source string, pod Pod) string {
	folder := n.podFolder(pod)
	if _, ok := below(folder, source); !ok || n.Mounts == nil {
		return ""
	}
	table, err := n.Mounts()
	if err != nil {
		return ""
	}
	for _, origin := range parseMounts(table).origins(source) {
		if _, inside := below(folder, origin); !inside {
			return origin
		}
	}
	return ""
}

// mountPoint is one line of a mount table.
type mountPoint struct {
	device      string // major:minor
	root, point string // the path in the file system that is seen at point
}

type mountTable []mountPoint

// parseMounts reads proc_pid_mountinfo(5). A line that cannot be read is left
// out: what it would have told is then not known.
func parseMounts(table []byte) mountTable {
	var t mountTable
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) < 10 {
			continue
		}
		t = append(t, mountPoint{fields[2], unescape(fields[3]), unescape(fields[4])})
	}
	return t
}

// origins are the paths by which the object mounted at a place can be reached
// without that mount.
func (t mountTable) origins(point string) []string {
	at := -1
	for i := range t {
		if t[i].point == point {
			at = i // the last one covers the others
		}
	}
	if at < 0 {
		return nil
	}
	var found []string
	for i, m := range t {
		if i == at || m.device != t[at].device {
			continue
		}
		if m.root == t[at].root {
			found = append(found, m.point)
		} else if rest, ok := strings.CutPrefix(t[at].root, strings.TrimSuffix(m.root, "/")+"/"); ok {
			found = append(found, path.Join(m.point, rest))
		}
	}
	return found
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
