// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/c8s-dev/c8s/agent/handover"
)

// HandoverSocket is the hand-over socket's file name inside the run folder.
const HandoverSocket = "handover.sock"

const (
	// lookAgain is how often a successor asks for the pods while it prepares.
	lookAgain = 100 * time.Millisecond
	// sayWhy is how often it says what it waits for.
	sayWhy = 10 * time.Second
)

// FindPredecessor looks for a daemon that owns this node; nil if there is none.
// Ask before the kernel is touched: daemons with other terms, such as other
// firewall marks, cannot live beside one another.
func FindPredecessor(ctx context.Context, runDir, release string, terms handover.Terms) (*handover.Successor, error) {
	s, err := handover.Dial(ctx, filepath.Join(runDir, HandoverSocket), release, terms)
	if errors.Is(err, handover.ErrNobody) {
		return nil, nil
	}
	return s, err
}

// succeed brings every pod of the predecessor as far as open, in this daemon's
// books only, and then takes its sockets. It waits as long as that takes: the
// predecessor serves meanwhile. Without a predecessor, or when it ends before,
// there are no sockets, and the daemon is on its own.
func (r *run) succeed(told context.Context) (map[string]*os.File, error) {
	p := r.cfg.Predecessor
	if p == nil {
		return nil, nil
	}
	r.cfg.Log.Info("preparing to take over from the running daemon", "release", p.Release)
	began, said := time.Now(), time.Now()
	for {
		changed := r.changed.heard()
		pods, err := p.Pods()
		if err != nil {
			return nil, r.alone(err)
		}
		r.adopt(pods)
		waits := r.unsettled(pods)
		if waits == nil {
			break
		}
		if time.Since(said) >= sayWhy {
			said = time.Now()
			r.cfg.Log.Warn("not taking over yet", "since", time.Since(began).Round(time.Second), "because", waits)
		}
		select {
		case <-told.Done():
			return nil, nil
		case <-r.life.Done():
			return nil, nil
		case <-changed:
		case <-time.After(lookAgain):
		}
	}
	asked := r.cfg.Now()
	taken, err := p.Take(memoryAnswers, memoryAffinity)
	if err != nil {
		return nil, r.alone(err)
	}
	r.adopt(taken.Pods)
	r.remember(taken, asked)
	return taken.Sockets, nil
}

// alone is nil when err says that the predecessor has ended.
func (r *run) alone(err error) error {
	if !errors.Is(err, handover.ErrOwnerGone) {
		return err
	}
	r.cfg.Log.Warn("the daemon before has ended without a hand-over", "err", err)
	_ = r.cfg.Predecessor.Close()
	r.cfg.Predecessor = nil
	return nil
}

// adopt makes the predecessor's pods this daemon's. They are claims like those
// of any source; the source itself has to confirm them later.
func (r *run) adopt(pods []handover.Pod) {
	former := r.podInfos()
	for _, p := range pods {
		info, err := parseAdopted(p.Info)
		if err != nil {
			r.cfg.Log.Error("a pod of the daemon before is left out; it will be locked", "err", err)
			continue
		}
		delete(former, info.UID)
		if !r.goesOn(info) {
			r.podEvent(r.life, PodEvent{Pod: info})
		}
	}
	for _, info := range former {
		r.podEvent(r.life, PodEvent{Removed: true, Pod: info})
	}
}

// parseAdopted ignores unknown fields: the predecessor may be of a later
// release.
func parseAdopted(raw []byte) (PodInfo, error) {
	var info PodInfo
	err := json.Unmarshal(raw, &info)
	if err == nil {
		err = info.Validate()
	}
	if err != nil {
		return PodInfo{}, fmt.Errorf("reading a pod of the daemon before: %w", err)
	}
	return info, nil
}

// unsettled says why it is too early to take over, or returns nil. A pod that
// the manifest or a deny list refuses is settled. What the node lacks besides
// is not asked for: it may be a part that only the owner runs.
func (r *run) unsettled(pods []handover.Pod) error {
	if err := r.enrolled(); err != nil {
		return err
	}
	if c := r.cfg.Cluster; c != nil {
		if connected, _ := c.Contact(); !connected {
			return errors.New("the API server has not been reached, and only the running daemon knows what it said before")
		}
	}
	for _, p := range pods {
		info, err := parseAdopted(p.Info)
		if err != nil || !p.Open {
			continue
		}
		held := r.heldBack(info.UID)
		if held != nil && (held.State != StateLocked || held.Reason == "") {
			return held
		}
	}
	return nil
}
