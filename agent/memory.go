// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/external"
	"github.com/c8s-dev/c8s/datapath/resolve"
)

// Kinds of memory in hand-overs: what pods were answered with for names outside
// the cluster, and their endpoints of Services with session affinity. They never
// change; another form is another kind.
const (
	memoryAnswers  = "answers/1"
	memoryAffinity = "affinity/1"
)

// So many entries fit into a message of a hand-over, however long their names.
const (
	answersPerPiece    = 256
	affinitiesPerPiece = 512
)

// answersPiece is what one pod was answered with: for how many seconds an
// address of a name still counts. What is left of a second does not.
type answersPiece struct {
	UID   string                           `json:"uid"`
	Names map[string]map[netip.Addr]uint32 `json:"names"`
}

// affinityPiece is one client's endpoint.
type affinityPiece struct {
	Client   netip.Addr       `json:"client"`
	Service  netip.AddrPort   `json:"service"`
	Protocol resolve.Protocol `json:"protocol"`
	Endpoint netip.AddrPort   `json:"endpoint"`
	Left     uint32           `json:"left"` // seconds
}

// Memory implements handover.Owner.
func (r *run) Memory(kinds []string) (all []handover.Memory) {
	if slices.Contains(kinds, memoryAnswers) {
		all = append(all, encodeAnswers(r.bindings.Told())...)
	}
	if slices.Contains(kinds, memoryAffinity) {
		all = append(all, encodeAffinities(r.mesh.table.Affinities())...)
	}
	return all
}

// encodeAnswers is given the answers pod by pod.
func encodeAnswers(told []external.Told) (all []handover.Memory) {
	for len(told) > 0 {
		piece, n := answersPiece{UID: told[0].UID, Names: map[string]map[netip.Addr]uint32{}}, 0
		for n < len(told) && n < answersPerPiece && told[n].UID == piece.UID {
			t := &told[n]
			if piece.Names[t.Name] == nil {
				piece.Names[t.Name] = map[netip.Addr]uint32{}
			}
			piece.Names[t.Name][t.Addr] = seconds(t.Left)
			n++
		}
		told = told[n:]
		all = appendPiece(all, memoryAnswers, piece)
	}
	return all
}

func encodeAffinities(affinities []resolve.Affinity) (all []handover.Memory) {
	for some := range slices.Chunk(affinities, affinitiesPerPiece) {
		piece := make([]affinityPiece, len(some))
		for i, a := range some {
			piece[i] = affinityPiece{a.Client, a.Service, a.Protocol, a.Endpoint, seconds(a.Left)}
		}
		all = appendPiece(all, memoryAffinity, piece)
	}
	return all
}

func appendPiece(all []handover.Memory, kind string, piece any) []handover.Memory {
	raw, err := json.Marshal(piece)
	if err != nil {
		return all // a zone of an address that is no text: nobody can use it
	}
	return append(all, handover.Memory{Kind: kind, Data: raw})
}

// seconds never rounds up.
func seconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 0), 1<<32-1)) //nolint:gosec // bounded
}

// decodeAnswers ignores unknown fields, as decodeAffinities does.
func decodeAnswers(raw []byte) (told []external.Told, err error) {
	var piece answersPiece
	if err := json.Unmarshal(raw, &piece); err != nil {
		return nil, fmt.Errorf("reading answers that the daemon before gave: %w", err)
	}
	for name, addrs := range piece.Names {
		for addr, left := range addrs {
			if !plainAddr(addr) || piece.UID == "" || name == "" {
				return nil, errors.New("reading answers that the daemon before gave: one lacks its pod, name or address")
			}
			told = append(told, external.Told{UID: piece.UID, Name: name, Addr: addr, Left: time.Duration(left) * time.Second})
		}
	}
	return told, nil
}

func decodeAffinities(raw []byte) (all []resolve.Affinity, err error) {
	var piece []affinityPiece
	if err := json.Unmarshal(raw, &piece); err != nil {
		return nil, fmt.Errorf("reading affinities of the daemon before: %w", err)
	}
	for _, a := range piece {
		if !plainAddr(a.Client) || !plainAddr(a.Service.Addr()) || !plainAddr(a.Endpoint.Addr()) {
			return nil, errors.New("reading affinities of the daemon before: one lacks an address")
		}
		all = append(all, resolve.Affinity{
			Client: a.Client, Service: a.Service, Protocol: a.Protocol, Endpoint: a.Endpoint, Left: time.Duration(a.Left) * time.Second,
		})
	}
	return all, nil
}

// plainAddr reports whether addr is written as the datapath writes addresses:
// in another form it could pass for one that nobody claims.
func plainAddr(addr netip.Addr) bool {
	return addr.IsValid() && !addr.Is4In6() && addr.Zone() == ""
}

// remember makes this daemon's what the predecessor remembered, as far as this
// one could have come to know the same by itself: its own manifest, routes and
// settings judge, about pods that it has enrolled. asked is when the predecessor
// was asked: nothing counts longer for having been on its way.
func (r *run) remember(taken *handover.Taken, asked time.Time) {
	j := judge{run: r, asked: asked, pods: r.meshPods()}
	for _, piece := range taken.Memory {
		if err := j.piece(piece); err != nil {
			r.cfg.Log.Error("something that the daemon before remembered is left out", "err", err)
		}
	}
	// A pod that left the mesh meanwhile has been forgotten, perhaps too early.
	still := r.meshPods()
	for uid, pod := range j.pods {
		if still[uid] != pod {
			r.bindings.Forget(uid)
		}
	}
	r.cfg.Log.Info("what the daemon before remembered was judged", "kept", j.kept, "leftOut", j.leftOut, "piecesTooMany", taken.LeftOut)
}

func (r *run) meshPods() map[string]*datapath.LocalPod {
	pods := map[string]*datapath.LocalPod{}
	for _, p := range r.mesh.list() {
		pods[p.UID] = p
	}
	return pods
}

// judge decides what of a predecessor's memory counts.
type judge struct {
	*run
	asked         time.Time
	pods          map[string]*datapath.LocalPod // that this daemon has enrolled, by UID
	kept, leftOut int
}

func (j *judge) piece(m handover.Memory) error {
	switch m.Kind {
	case memoryAnswers:
		told, err := decodeAnswers(m.Data)
		for _, t := range told {
			pod := j.pods[t.UID]
			j.count(pod != nil && j.names != nil && j.names.Admits(pod.Workload, t.Name, t.Addr) && j.bindings.Adopt(t, j.asked))
		}
		return err
	case memoryAffinity:
		all, err := decodeAffinities(m.Data)
		for _, a := range all {
			j.count(j.mesh.table.AdoptAffinity(a, j.asked))
		}
		return err
	}
	return nil // another kind was not asked for
}

func (j *judge) count(kept bool) {
	if kept {
		j.kept++
	} else {
		j.leftOut++
	}
}
