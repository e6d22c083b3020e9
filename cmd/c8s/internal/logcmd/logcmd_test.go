// SPDX-License-Identifier: Apache-2.0

package logcmd_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/logcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// auditor is a desk and a CDS to look at.
type auditor struct {
	*desktest.Desk
	cds *cdstest.CDS
}

func newAuditor(t *testing.T, opts ...policytest.Option) *auditor {
	t.Helper()
	a := &auditor{desktest.New(t, logcmd.New), cdstest.New(t, opts...)}
	a.cds.TrustIn(a.Dir)
	return a
}

// online are the flags for the CDS where it listens now.
func (a *auditor) online() string {
	return " --cds " + a.cds.Addr + " --operators @operators.json --manifest @manifest.signed.json"
}

func (a *auditor) watch(more string) desktest.Result {
	a.T.Helper()
	return a.Run("watch --once --grace 0s --mirror @mirror" + more + a.online())
}

func (a *auditor) mustWatch(more string) desktest.Result {
	a.T.Helper()
	r := a.watch(more)
	if r.Code != exit.OK {
		a.T.Fatalf("watch: exit %d: %s", r.Code, r.ErrOut)
	}
	return r
}

// pem writes a credential's certificates.
func (a *auditor) pem(name string, cred *client.Credential) {
	a.T.Helper()
	var text []byte
	for _, der := range cred.TLS.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	a.Write(name, text)
}

func (a *auditor) bundle() *trust.Bundle {
	a.T.Helper()
	b, err := trust.Parse(a.Read("mirror/bundle.json"))
	if err != nil {
		a.T.Fatal(err)
	}
	return b
}

// opened is a signed checkpoint that was kept.
func (a *auditor) opened(name string) *translog.Checkpoint {
	a.T.Helper()
	v, err := a.bundle().LogVerifier()
	if err != nil {
		a.T.Fatal(err)
	}
	c, err := translog.OpenCheckpoint(a.Read(name), v.Name(), v)
	if err != nil {
		a.T.Fatal(err)
	}
	return c
}

func TestWatchMirrorsAndPrintsWhatIsNew(t *testing.T) {
	a := newAuditor(t)
	r := a.mustWatch("")
	for _, want := range []string{"bundle", "manifest", "intermediate"} {
		if !strings.Contains(r.Out, want) {
			t.Errorf("the log lacks %q:\n%s", want, r.Out)
		}
	}
	if r := a.mustWatch(""); r.Out != "" {
		t.Errorf("nothing happened, printed was %q", r.Out)
	}
	a.cds.Enrol()
	var line struct {
		Index int64
		Entry json.RawMessage
	}
	r = a.mustWatch(" -o json")
	if err := json.Unmarshal([]byte(r.Out), &line); err != nil {
		t.Fatalf("%v: %q", err, r.Out)
	}
	if e, err := translog.ParseEntry(line.Entry); err != nil || e.Type != translog.TypeIssuance || line.Index != 3 {
		t.Errorf("entry %d: %s, %v", line.Index, line.Entry, err)
	}
}

// waiter cancels once enough was written.
type waiter struct {
	mu   sync.Mutex
	text strings.Builder
	want string
	done func()
}

func (w *waiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if strings.Contains(w.text.String(), w.want) {
		w.done()
	}
	return len(p), nil
}

func TestWatchFollowsUntilItIsStopped(t *testing.T) {
	a := newAuditor(t)
	ctx, cancel := context.WithCancel(t.Context())
	enrol := sync.OnceFunc(func() { a.cds.Enrol() })
	c := logcmd.New()
	c.SetArgs([]string{"watch", "--interval", "1ms", "--mirror", a.Path("mirror"), "--cds", a.cds.Addr, "--operators", a.Path("operators.json"), "--manifest", a.Path("manifest.signed.json")})
	c.SetOut(&waiter{want: "issuance", done: cancel})
	c.SetErr(&waiter{want: "new mirror of the log with the key", done: enrol})
	c.SilenceErrors, c.SilenceUsage = true, true
	if err := c.ExecuteContext(ctx); err != context.Canceled { //nolint:errorlint // exactly that one
		t.Errorf("ended with %v", err)
	}
}

// rollBack gives the CDS the store of an earlier moment.
func (a *auditor) rollBack(s storetest.Snapshot) {
	a.T.Helper()
	a.cds.Stop()
	a.cds.Store.Restore(s)
	a.cds.Start(a.cds.Attester("cds"))
}

func TestWatchKeepsTheProofThatTheLogShrank(t *testing.T) {
	a := newAuditor(t)
	before := a.cds.Store.Snapshot()
	for range 3 {
		a.cds.Enrol()
	}
	a.mustWatch("")
	a.rollBack(before)
	r := a.watch("")
	if r.Code != exit.Refused || !strings.Contains(r.ErrOut, "older") || !strings.Contains(r.ErrOut, "checkpoint.older") {
		t.Fatalf("exit %d: %s", r.Code, r.ErrOut)
	}
	if had, has := a.opened("mirror/checkpoint"), a.opened("mirror/checkpoint.older"); has.Size >= had.Size {
		t.Errorf("kept are checkpoints of %d and %d entries", had.Size, has.Size)
	}
}

func TestWatchKeepsTheProofThatTheLogForked(t *testing.T) {
	a := newAuditor(t)
	before := a.cds.Store.Snapshot()
	a.cds.Enrol()
	a.mustWatch("")
	a.rollBack(before)
	for range 3 {
		a.cds.Enrol()
	}
	r := a.watch("")
	if r.Code != exit.Refused || !strings.Contains(r.ErrOut, "two histories") || !strings.Contains(r.ErrOut, "checkpoint.forked") {
		t.Fatalf("exit %d: %s", r.Code, r.ErrOut)
	}
	had, has := a.opened("mirror/checkpoint"), a.opened("mirror/checkpoint.forked")
	if has.Size < had.Size || has.Root == had.Root {
		t.Errorf("kept are %+v and %+v", had, has)
	}
	if r := a.watch(""); r.Code != exit.Refused {
		t.Error("the second time it took the other history")
	}
}

func TestWatchTakesNoOtherCDSForTheMirrors(t *testing.T) {
	a := newAuditor(t)
	a.mustWatch("")
	a.cds.Stop()
	a.cds.Store = storetest.NewMemory()
	a.cds.Start(a.cds.Attester("cds"))
	if r := a.watch(""); r.Code != exit.Refused || !strings.Contains(r.ErrOut, "other keys") {
		t.Errorf("exit %d: %s", r.Code, r.ErrOut)
	}
}

// witness writes a witness's key, and returns its entry for a manifest.
func (a *auditor) witness(name string) policy.Witness {
	a.T.Helper()
	key, err := operatorkey.Generate(policy.AlgorithmEd25519)
	if err == nil {
		err = operatorkey.Write(a.Path(name+".pem"), key, false)
	}
	if err != nil {
		a.T.Fatal(err)
	}
	var w policy.Witness
	if err := json.Unmarshal([]byte(a.Must("witness-key @"+name+".pem --name "+name).Out), &w); err != nil {
		a.T.Fatal(err)
	}
	return w
}

func TestWitnessesCosignWhatTheyHaveVerified(t *testing.T) {
	a := newAuditor(t)
	w := a.witness("w.example")
	a.witness("stranger.example")
	next := a.cds.Next(t, func(m *policy.Manifest) { m.Witnesses, m.WitnessQuorum = []policy.Witness{w}, 1 })
	if _, err := a.cds.Client().PublishManifest(t.Context(), next.Envelope); err != nil {
		t.Fatal(err)
	}
	a.Refused(exit.Partial, "verify"+a.online(), "cosigned by 0 witnesses where the manifest asks for 1")
	if r := a.watch(" --cosign @stranger.example.pem --name stranger.example --submit"); r.Code != exit.Refused || !strings.Contains(r.ErrOut, "checkpoint-invalid") {
		t.Errorf("a stranger: exit %d: %s", r.Code, r.ErrOut)
	}
	if r := a.mustWatch(" --cosign @w.example.pem --name w.example --submit"); !strings.Contains(r.ErrOut, "the CDS has the cosignatures of w.example") {
		t.Errorf("said %q", r.ErrOut)
	}
	if r := a.Must("verify" + a.online()); !strings.Contains(r.Out, "by w.example at") {
		t.Errorf("said %q", r.Out)
	}
	// The same from the mirror, for those who are told who the witnesses are.
	a.Write("next.json", next.Envelope)
	if r := a.Must("verify @mirror --operators @operators.json --manifest @next.json"); !strings.Contains(r.Out, "by w.example at") {
		t.Errorf("said %q", r.Out)
	}
	a.Refused(exit.Misuse, "watch --mirror @m --cosign @w.example.pem"+a.online(), "--name")
	a.Refused(exit.Misuse, "watch --mirror @m --submit"+a.online(), "--cosign")
}

// A watcher that is no witness keeps what the witnesses said.
func TestWatchKeepsTheCosignaturesOfOthers(t *testing.T) {
	a := newAuditor(t)
	w := a.witness("w.example")
	next := a.cds.Next(t, func(m *policy.Manifest) { m.Witnesses, m.WitnessQuorum = []policy.Witness{w}, 1 })
	if _, err := a.cds.Client().PublishManifest(t.Context(), next.Envelope); err != nil {
		t.Fatal(err)
	}
	a.mustWatch(" --cosign @w.example.pem --name w.example --submit")
	a.Must("watch --once --mirror @other" + a.online())
	verifier, err := translog.NewCosignerVerifier(w.Key)
	if err != nil {
		t.Fatal(err)
	}
	if found := translog.Cosignatures(a.Read("other/checkpoint.cosigned"), []*translog.CosignerVerifier{verifier}); len(found) != 1 {
		t.Errorf("kept are %v", found)
	}
}

func TestVerifyReadsMirrorsAndServers(t *testing.T) {
	a := newAuditor(t)
	a.cds.Enrol()
	if _, err := a.cds.Client().PublishDenyList(t.Context(), a.cds.DenyList(t, nil).Envelope); err != nil {
		t.Fatal(err)
	}
	a.mustWatch("")
	var got struct {
		Entries, Breaches int64
		Types             map[string]int64
		Manifest          struct{ Version uint64 }
		DenyList          struct{ Version uint64 }
		Unknown           []string
	}
	if err := json.Unmarshal([]byte(a.Must("verify @mirror -o json").Out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Entries != 5 || got.Breaches != 0 || got.Types["issuance"] != 1 || got.Manifest.Version != 1 || got.DenyList.Version != 1 || len(got.Unknown) != 1 {
		t.Errorf("verified %+v", got)
	}
	a.Must("verify" + a.online())

	server := httptest.NewServer(http.FileServer(http.Dir(a.Path("mirror"))))
	defer server.Close()
	key := a.bundle().Log
	if r := a.Must("verify " + server.URL + " --log-key " + key); !strings.Contains(r.Out, "all kept") {
		t.Errorf("said %q", r.Out)
	}
	a.Refused(exit.Misuse, "verify "+server.URL, "--log-key is required")
	a.Refused(exit.Misuse, "verify", "name either a mirror")
	a.Refused(exit.Misuse, "verify @mirror"+a.online(), "name either a mirror")
	a.Refused(exit.Misuse, "verify @missing", "opening the mirror")
	other := newAuditor(t)
	other.mustWatch("")
	a.Refused(exit.Refused, "verify @mirror --log-key "+other.bundle().Log, "not --log-key")
	a.Refused(exit.Refused, "verify "+server.URL+" --log-key "+other.bundle().Log, "")
}

func TestVerifyFindsWhatWasChanged(t *testing.T) {
	for _, file := range []string{"tile/entries/000.p", "tile/0/000.p", "checkpoint"} {
		a := newAuditor(t)
		a.mustWatch("")
		path := filepath.Join(a.Path("mirror"), file)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			parts, err := os.ReadDir(path)
			if err != nil || len(parts) != 1 {
				t.Fatalf("%s: %v, %v", file, parts, err)
			}
			path = filepath.Join(path, parts[0].Name())
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text[len(text)/2] ^= 1
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := a.Run("verify @mirror"); r.Code != exit.Refused {
			t.Errorf("%s was changed: exit %d: %s", file, r.Code, r.Out)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if r := a.Run("verify @mirror"); r.Code != exit.Refused {
			t.Errorf("%s is gone: exit %d: %s", file, r.Code, r.Out)
		}
	}
}
