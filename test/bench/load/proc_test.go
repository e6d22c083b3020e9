// SPDX-License-Identifier: Apache-2.0

package load

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fakeProc writes files below a folder that stands for /proc.
func fakeProc(t *testing.T, files map[string]string) Proc {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Proc{root}
}

func TestCPUSecondsAddsUserAndSystemTimeOfAllProcesses(t *testing.T) {
	p := fakeProc(t, map[string]string{
		"10/stat": "10 (c8s) S 1 10 10 0 -1 4194560 1 0 0 0 150 50 9 9 20 0 1 0 5 1 1\n",
		"11/stat": "11 (a) R ) odd) S 1 11 11 0 -1 4194560 1 0 0 0 7 3 9 9 20 0 1 0 5 1 1\n",
	})
	got, err := p.CPUSeconds(10, 11)
	if err != nil || got != 2.10 {
		t.Errorf("CPUSeconds = %v, %v, want 2.1", got, err)
	}
}

func TestProcRefusesWhatItCannotRead(t *testing.T) {
	p := fakeProc(t, map[string]string{
		"1/stat": "", "2/stat": "2 (x) S 1 2", "3/stat": "3 (x) S 1 3 3 0 -1 1 1 0 0 0 x 50 0", "4/stat": "4 (x) S 1 3 3 0 -1 1 1 0 0 0 5 -1 0",
		"1/smaps_rollup": "", "2/smaps_rollup": "Rss: 5 kB\n", "3/smaps_rollup": "Rss: 5 kB\nPss: x kB\n",
		"stat": "intr 5\n",
	})
	for pid := 1; pid <= 5; pid++ { // 5 does not exist
		if _, err := p.CPUSeconds(pid); err == nil {
			t.Errorf("stat of process %d was accepted", pid)
		}
		if _, err := p.Memory(pid); err == nil {
			t.Errorf("smaps_rollup of process %d was accepted", pid)
		}
	}
	if _, err := p.Machine(); err == nil {
		t.Error("/proc/stat without a cpu line was accepted")
	}
}

func TestMemoryAddsResidentAndProportionalSizes(t *testing.T) {
	text := "00400000-7fff [rollup]\nRss:      2000 kB\nPss:      1000 kB\nPss_Anon:  900 kB\nSwapPss: 5 kB\n"
	p := fakeProc(t, map[string]string{"1/smaps_rollup": text, "2/smaps_rollup": text})
	got, err := p.Memory(1, 2)
	want := Memory{RSS: 4000 << 10, PSS: 2000 << 10}
	if err != nil || got != want {
		t.Errorf("Memory = %+v, %v, want %+v", got, err, want)
	}
}

func TestMachineLeavesOutIdleAndStolenTime(t *testing.T) {
	p := fakeProc(t, map[string]string{"stat": "cpu  100 200 300 5000 600 70 80 900 10 20\ncpu0 1\n"})
	got, err := p.Machine()
	if want := (MachineCPU{Busy: 7.5, SoftIRQ: 0.8}); err != nil || got != want {
		t.Errorf("Machine = %+v, %v, want %+v", got, err, want)
	}
}

func TestRealProcIsUnderstood(t *testing.T) {
	p, self := NewProc(), os.Getpid()
	for until := time.Now().Add(100 * time.Millisecond); time.Now().Before(until); { // be busy
	}
	if s, err := p.CPUSeconds(self); err != nil || s <= 0 {
		t.Errorf("CPUSeconds = %v, %v", s, err)
	}
	if m, err := p.Memory(self); err != nil || m.PSS == 0 || m.RSS < m.PSS {
		t.Errorf("Memory = %+v, %v", m, err)
	}
	if m, err := p.Machine(); err != nil || m.Busy <= 0 {
		t.Errorf("Machine = %+v, %v", m, err)
	}
}

func TestIdleMeasuresOnlyConnectionsThatSurvive(t *testing.T) {
	r, err := Idle(t.Context(), serve(t, Echo), 50, 20*time.Millisecond, NewProc(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if r.Connections != 50 || r.Before.PSS == 0 || r.After.PSS == 0 {
		t.Errorf("%+v", r)
	}
	got := IdleResult{Connections: 10, Before: Memory{RSS: 500, PSS: 100}, After: Memory{RSS: 400, PSS: 300}}
	if got.PerConnection() != 20 || got.RSSPerConnection() != -10 {
		t.Errorf("per connection %v and %v, want 20 and -10", got.PerConnection(), got.RSSPerConnection())
	}
	if _, err := Idle(t.Context(), serve(t, Once), 3, 20*time.Millisecond, NewProc(), os.Getpid()); err == nil {
		t.Error("connections closed by the server were accepted as idle")
	}
}
