// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// maxPodFile bounds one pod description, in bytes.
const maxPodFile = 64 << 10

// DirSource reads pods from a folder: one JSON PodInfo per file named
// *.json, hidden ones aside. Writers create a file under another name and rename it in, so that
// a half-written description is never seen. A file that cannot be read or
// understood is no pod: its link stays locked.
type DirSource struct {
	Dir string
	Log *slog.Logger
}

// Watch implements Source.
func (s *DirSource) Watch(ctx context.Context, out chan<- PodEvent) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the pod folder: %w", err)
	}
	defer w.Close()
	if err := w.Add(s.Dir); err != nil {
		return fmt.Errorf("watching the pod folder %s: %w (create it first)", s.Dir, err)
	}
	known := map[string]PodInfo{}
	for {
		if err := s.sync(ctx, known, out); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-w.Errors:
			// An overflow loses events, never state: the next sync reads the whole folder.
			s.Log.Warn("pod folder watcher", "err", err)
		case <-w.Events:
			settle(w.Events)
		}
	}
}

// settle takes the events that are there already: one look at the folder
// answers them all.
func settle(events <-chan fsnotify.Event) {
	for {
		select {
		case <-events:
		default:
			return
		}
	}
}

// sync compares the folder with what was last reported and sends the
// differences, removals first so that a reused address is free again.
func (s *DirSource) sync(ctx context.Context, known map[string]PodInfo, out chan<- PodEvent) error {
	found, err := s.read()
	if err != nil {
		return err
	}
	send := func(e PodEvent) error {
		select {
		case out <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for file, pod := range known {
		if now, ok := found[file]; ok && now.UID == pod.UID {
			continue
		}
		delete(known, file)
		if err := send(PodEvent{Removed: true, Pod: pod}); err != nil {
			return err
		}
	}
	for file, pod := range found {
		if old, ok := known[file]; ok && reflect.DeepEqual(old, pod) {
			continue
		}
		known[file] = pod
		if err := send(PodEvent{Pod: pod}); err != nil {
			return err
		}
	}
	return nil
}

func (s *DirSource) read() (map[string]PodInfo, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("reading the pod folder: %w", err)
	}
	found := map[string]PodInfo{}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		pod, err := readPod(filepath.Join(s.Dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.Log.Error("pod description refused; its link stays locked", "file", e.Name(), "err", err)
			continue
		}
		found[e.Name()] = pod
	}
	return found, nil
}

func readPod(path string) (PodInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return PodInfo{}, err
	}
	if info.Size() > maxPodFile {
		return PodInfo{}, fmt.Errorf("%d bytes, at most %d allowed", info.Size(), maxPodFile)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return PodInfo{}, err
	}
	return parsePod(raw)
}

func parsePod(raw []byte) (PodInfo, error) {
	var pod PodInfo
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&pod); err != nil {
		return PodInfo{}, fmt.Errorf("parsing the pod description: %w", err)
	}
	if dec.More() {
		return PodInfo{}, errors.New("parsing the pod description: data after the JSON object")
	}
	if err := pod.Validate(); err != nil {
		return PodInfo{}, fmt.Errorf("checking the pod description: %w", err)
	}
	return pod, nil
}
