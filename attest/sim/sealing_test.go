// SPDX-License-Identifier: Apache-2.0

package sim_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/collateral"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/tsm"
)

func sealingKey(t *testing.T, purpose string, edits ...func(*sim.Options)) [32]byte {
	t.Helper()
	key, err := simtest.Attester(t, "sealing", edits...).SealingKey(context.Background(), purpose)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSealingKeyIsOfThisMachineAndMeasurement(t *testing.T) {
	key := sealingKey(t, "a")
	if key == [32]byte{} {
		t.Error("a key of zeros")
	}
	for name, c := range map[string]struct {
		purpose string
		edit    func(*sim.Options)
		same    bool
	}{
		"started again":       {"a", func(*sim.Options) {}, true},
		"other host data":     {"a", func(o *sim.Options) { o.HostData[0]++ }, true}, // as on SEV-SNP
		"another purpose":     {"b", func(*sim.Options) {}, false},
		"another program":     {"a", func(o *sim.Options) { o.Measurement[0]++ }, false},
		"another machine":     {"a", func(o *sim.Options) { o.ChipID[0]++ }, false},
		"a debuggable guest":  {"a", func(o *sim.Options) { o.Debug = true }, false},
		"a migratable guest":  {"a", func(o *sim.Options) { o.Migration = true }, false},
		"another machine too": {"a", func(o *sim.Options) { o.ChipID[63]++ }, false},
	} {
		if got := sealingKey(t, c.purpose, c.edit); (got == key) != c.same {
			t.Errorf("%s: the same key is %v", name, got == key)
		}
	}
}

func TestOtherFolderIsAnotherMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a vendor, which takes a second")
	}
	tee, err := sim.New(t.TempDir(), simtest.Options("sealing"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := tee.SealingKey(context.Background(), "a")
	if err != nil || key == sealingKey(t, "a") {
		t.Errorf("the same key: %v", err)
	}
}

func TestBrokenSecretIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	vendor, err := os.ReadFile(filepath.Join(simtest.Dir(t), "simulated-milan.pem"))
	if err != nil {
		simtest.New(t, "makes the vendor")
		if vendor, err = os.ReadFile(filepath.Join(simtest.Dir(t), "simulated-milan.pem")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "simulated-milan.pem"), vendor, 0o600); err != nil {
		t.Fatal(err)
	}
	tee, err := sim.New(dir, simtest.Options("sealing"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tee.SealingKey(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "simulated-chip-*.secret"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(files[0], []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tee.SealingKey(context.Background(), "a"); err == nil {
		t.Error("a short secret was used")
	}
}

func TestStaplerPassesTheQuestionOn(t *testing.T) {
	ctx := context.Background()
	s := &collateral.Stapler{Attester: simtest.Attester(t, "sealing")}
	if key, err := s.SealingKey(ctx, "a"); err != nil || key != sealingKey(t, "a") {
		t.Error(err)
	}
	td, err := sim.NewTDX(t.TempDir(), sim.TDXOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Attester = tsm.New(td)
	if _, err := s.SealingKey(ctx, "a"); !errors.Is(err, attest.ErrNoSealing) {
		t.Errorf("TDX derived a key: %v", err)
	}
	s.Attester = struct{ attest.Attester }{}
	if _, err := s.SealingKey(ctx, "a"); !errors.Is(err, attest.ErrNoSealing) {
		t.Errorf("nobody derived a key: %v", err)
	}
}
