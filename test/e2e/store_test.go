// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

const (
	kills = 25
	// liveAtMost is how long a replica lives, once it is ready, before it is
	// killed.
	liveAtMost = 500 * time.Millisecond

	storeFile = "cds.db"
	// smallDisk holds a store that has just begun, and little more.
	smallDisk = 2 << 20
)

// One replica that keeps a file: what happens to the file, or to the process in
// the middle of a write.
func TestReplicaOnAFile(t *testing.T) {
	s := newSite(t, func(o *cluster.Options) { o.CDSFlags = []string{"--max-certificates", "100000"} })
	a := newAuditor(t, s.Cluster)
	t.Run("killed at any moment", func(t *testing.T) { s.killedAtAnyMoment(t, a) })
	t.Run("store put back", func(t *testing.T) { s.storePutBack(t, a) })
	t.Run("disk full", func(t *testing.T) { s.diskFull(t, a) }) // last: the disk stays small
}

// What was handed out is in the log, what was acknowledged stays, and there is
// one CA, however often the process is killed.
func (s *site) killedAtAnyMoment(t *testing.T, a *auditor) {
	r := s.CDS[0]
	load := startLoad(t, s.Cluster)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments, not keys
	talk := startTraffic(t, s.client, s.to)
	for range kills {
		time.Sleep(time.Duration(random.Int64N(int64(liveAtMost))))
		kill(t, r)
		manifest, denyList := load.manifest.Load(), load.denyList.Load()
		restart(t, r)
		a.audit(t)
		if a.manifests < manifest || a.denyLists < denyList {
			t.Fatalf("the log has manifest %d and deny list %d, acknowledged were %d and %d", a.manifests, a.denyLists, manifest, denyList)
		}
	}
	issued := load.stop(t)
	talk.mustFlow(t)
	a.audit(t)
	a.mustHaveAll(t, issued)
	if len(issued) < kills || load.manifest.Load() == 0 || load.denyList.Load() == 0 {
		t.Errorf("too little was done to mean anything: %d certificates, manifest %d, deny list %d", len(issued), load.manifest.Load(), load.denyList.Load())
	}
	t.Logf("seed %d: %d kills; %d certificates handed out, %d in the log of %d entries; manifest %d, deny list %d",
		seed, kills, len(issued), len(a.issued), a.read, a.manifests, a.denyLists)
}

// A store that cannot write issues nothing, breaks nothing, and goes on when
// there is room again.
func (s *site) diskFull(t *testing.T, a *auditor) {
	r := s.CDS[0]
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	room := smallDisk + len(read(t, filepath.Join(r.StateDir(), storeFile)))
	onDiskOf(t, r.StateDir(), room)
	restart(t, r)
	talk := startTraffic(t, s.client, s.to)
	cl, node := s.outsider(t)
	filler := filepath.Join(r.StateDir(), "filler")
	fill(t, filler)
	issued := issueUntilRefused(t, cl, node, "store-unavailable")
	late := addPod(t, s.Nodes[0], "stranger", lab.Routed)
	if err := late.WaitState(t.Context(), agent.StateAdmitted, "enrolment-failed"); err != nil {
		t.Fatal(err)
	}
	talk.mustFlow(t)
	if !r.Running() {
		t.Fatalf("the CDS ended:\n%s", r.Log())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := late.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
		t.Fatal(err)
	}
	t.Logf("the waiting pod is open %s after there was room again", since(began))
	if err := s.Nodes[0].RemovePod(late); err != nil {
		t.Fatal(err)
	}
	a.audit(t)
	a.mustHaveAll(t, issued)
}

// outsider enrols a node that has no daemon.
func (s *site) outsider(t *testing.T) (*client.Client, *client.Credential) {
	t.Helper()
	cl, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	att, err := s.Machine("outsider")
	if err != nil {
		t.Fatal(err)
	}
	node, err := cl.EnrolNode(t.Context(), att)
	if err != nil {
		t.Fatal(err)
	}
	return cl, node
}

// issueUntilRefused enrols pods until that is refused with code, again and
// again, and returns the certificates that were handed out.
func issueUntilRefused(t *testing.T, cl *client.Client, node *client.Credential, code string) (issued []policy.Digest) {
	t.Helper()
	for refusals := 0; refusals < 3; {
		pod, err := cl.EnrolPod(t.Context(), node, loadPod("load"))
		var refused *client.RefusedError
		switch {
		case err == nil:
			issued, refusals = append(issued, policy.DigestOf(pod.TLS.Leaf.Raw)), 0
		case errors.As(err, &refused) && refused.Code == code:
			refusals++
		default:
			t.Fatalf("after %d certificates: %v, want %s", len(issued), err, code)
		}
	}
	t.Logf("%d more certificates, and then %s", len(issued), code)
	return issued
}

// Nodes remember more of the log than a store that was put back has. It is not
// used, and everything goes on once the newest one is there again.
func (s *site) storePutBack(t *testing.T, a *auditor) {
	r := s.CDS[0]
	file := filepath.Join(r.StateDir(), storeFile)
	stopped := func(change func()) {
		t.Helper()
		if err := r.Stop(); err != nil {
			t.Fatal(err)
		}
		change()
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
	}
	var old, newest []byte
	stopped(func() { old = read(t, file) })
	if err := r.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.mustIssue(t, "the store copied")
	a.audit(t)

	talk := startTraffic(t, s.client, s.to)
	stopped(func() {
		newest = read(t, file)
		if bytes.Equal(newest, old) {
			t.Fatal("the store did not change")
		}
		write(t, file, old)
	})
	late := addPod(t, s.Nodes[0], "stranger", lab.Routed)
	if err := r.WaitNotReady(t.Context(), "rolled back"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Log(), `"code":"store-rolled-back"`) {
		t.Errorf("nothing was refused with store-rolled-back:\n%s", r.Log())
	}
	if err := late.WaitState(t.Context(), agent.StateAdmitted, "enrolment-failed"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.Log(), `"msg":"issued"`) {
		t.Errorf("a certificate was issued from a store that was put back:\n%s", r.Log())
	}
	talk.mustFlow(t)

	stopped(func() { write(t, file, newest) })
	if err := late.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
		t.Fatal(err)
	}
	a.audit(t)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func write(t *testing.T, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// onDiskOf puts a file system of that many bytes under a folder, with what the
// folder had. It is unmounted with the lab.
func onDiskOf(t *testing.T, dir string, size int) {
	t.Helper()
	raw := read(t, filepath.Join(dir, storeFile))
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size="+strconv.Itoa(size)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, storeFile), raw)
}

// fill writes until no byte fits any more.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, zeroes{}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { return len(p), nil }
