// SPDX-License-Identifier: Apache-2.0

package acquire

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-configfs-tsm/report"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/policy"
)

// tpmConn is a connection to the TPM emulator.
type tpmConn struct {
	transport.TPM
	net.Conn
}

func (c tpmConn) Close() error { return c.Conn.Close() }

// newTPM starts swtpm, a TPM 2.0, on sockets of its own.
func newTPM(t *testing.T) transport.TPMCloser {
	t.Helper()
	path, err := exec.LookPath("swtpm")
	if err != nil {
		if os.Getenv("C8S_CI") != "" {
			t.Fatal(err)
		}
		t.Skip("swtpm is not installed: apt-get install swtpm")
	}
	dir := t.TempDir()
	server := filepath.Join(dir, "server")
	cmd := exec.Command(path, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--flags", "not-need-init,startup-clear",
		"--server", "type=unixio,path="+server, "--ctrl", "type=unixio,path="+filepath.Join(dir, "ctrl"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var conn net.Conn
	for range 200 {
		if conn, err = net.Dial("unix", server); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := tpmConn{transport.FromReadWriter(conn), conn}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// provisionAK makes a restricted RSA signing key at Azure's handle.
func provisionAK(t *testing.T, tpm transport.TPM) *rsa.PublicKey {
	t.Helper()
	created, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme:  tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
			KeyBits: 2048,
		}),
	})}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: created.ObjectHandle, Name: created.Name}, PersistentHandle: akHandle,
	}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	public, err := created.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	unique, err := public.Unique.RSA()
	if err != nil {
		t.Fatal(err)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(unique.Buffer), E: 65537}
}

// provisionHCL puts an HCL report into Azure's index.
func provisionHCL(t *testing.T, tpm transport.TPM, kind uint32, hardware, runtime []byte) {
	t.Helper()
	b := make([]byte, 32+snp.ReportSize)
	copy(b, "HCLA")
	copy(b[32:], hardware)
	for _, v := range []uint32{uint32(20 + len(runtime)), 1, kind, 1, uint32(len(runtime))} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = append(b, runtime...)
	b = append(b, make([]byte, 2048-len(b))...) // swtpm allows no more; Azure has 2,600
	public := tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: hclIndex, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(b)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, AuthWrite: true, NT: tpm2.TPMNTOrdinary, NoDA: true},
	})
	if _, err := (tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: public}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	named, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(hclIndex)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(b); at += 1024 {
		chunk := b[at:min(len(b), at+1024)]
		if _, err := (tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(hclIndex), Name: named.NVName},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: chunk}, Offset: uint16(at),
		}).Execute(tpm); err != nil {
			t.Fatal(err)
		}
	}
}

func runtimeClaims(t *testing.T, ak *rsa.PublicKey) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"keys":             []any{map[string]any{"kid": "HCLAkPub", "kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(ak.N.Bytes())}},
		"vm-configuration": map[string]any{"secure-boot": true, "tpm-enabled": true, "vmUniqueId": "test"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hardware asks a simulated machine for a report or quote that vouches for the
// runtime claims.
func hardware(t *testing.T, runtime []byte, get func(inblob []byte) ([]byte, error)) []byte {
	t.Helper()
	var in [64]byte
	sum := sha256.Sum256(runtime)
	copy(in[:], sum[:])
	b, err := get(in[:])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// accepted appraises evidence under the policy proposed from it.
func accepted(t *testing.T, ev *attest.Evidence, reportData [64]byte, collateral []attest.Collateral) *attest.Verdict {
	t.Helper()
	req := appraise.Request{Role: policy.RoleNode, Unbound: true, Now: time.Now(), Collateral: collateral}
	s, v := appraise.Propose(ev, req)
	if !v.OK {
		t.Fatalf("not genuine:\n%s", v)
	}
	s.Roles = []policy.Role{policy.RoleNode}
	text, err := policy.EncodeAppraisalPolicy(&policy.AppraisalPolicy{Schema: policy.AppraisalSchema, Substrates: []policy.Substrate{s}})
	if err != nil {
		t.Fatal(err)
	}
	if req.Policy, err = policy.ParseAppraisalPolicy(text); err != nil {
		t.Fatal(err)
	}
	req.Unbound, req.ReportData = false, reportData
	return appraise.Appraise(ev, req)
}

func TestAzureSNPThroughARealTPM(t *testing.T) {
	tpm, tee := newTPM(t), simtest.New(t, "a")
	runtime := runtimeClaims(t, provisionAK(t, tpm))
	provisionHCL(t, tpm, 2, hardware(t, runtime, func(in []byte) ([]byte, error) {
		resp, err := report.Get(tee, &report.Request{InBlob: in, GetAuxBlob: true})
		if err != nil {
			return nil, err
		}
		return resp.OutBlob, nil
	}), runtime)
	usual, err := simtest.Attester(t, "a").Attest(context.Background(), [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	served := usual
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+thimPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata") != "true" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		toPEM := func(ders ...[]byte) (s string) {
			for _, der := range ders {
				s += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
			}
			return s
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"vcekCert": toPEM(served.Certs[0]), "certificateChain": toPEM(served.Certs[1:]...)})
	})
	imds := httptest.NewServer(mux)
	defer imds.Close()
	att, err := Open(context.Background(), Options{Method: MethodVTPM, TPM: func() (transport.TPMCloser, error) { return tpm, nil }, IMDS: imds.URL})
	if err != nil {
		t.Fatal(err)
	}
	// The simulated VCEK differs between two machines, so take this one's.
	resp, err := report.Get(tee, &report.Request{InBlob: make([]byte, 64), GetAuxBlob: true})
	if err != nil {
		t.Fatal(err)
	}
	table, err := snp.ParseCertTable(resp.AuxBlob)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := table.Chain(snp.KeyVCEK)
	if err != nil {
		t.Fatal(err)
	}
	served = &attest.Evidence{Certs: certs}

	data := attest.Transcript{Purpose: "test"}.ReportData()
	ev, err := att.Attest(context.Background(), data)
	if err != nil {
		t.Fatal(err)
	}
	if v := accepted(t, ev, data, nil); !v.OK || v.Paravisor != policy.ParavisorAzure || len(v.Registers) != 24 || !v.Simulated {
		t.Errorf("%s", v)
	}
	if v := accepted(t, ev, [64]byte{1}, nil); v.OK || v.Code != appraise.CodeReportData {
		t.Errorf("for somebody else: %s", v.Code)
	}
}

func TestAzureTDXThroughARealTPM(t *testing.T) {
	tpm := newTPM(t)
	td, err := sim.NewTDX(t.TempDir(), sim.TDXOptions{MRTD: [48]byte{1}, PIID: [16]byte{2}})
	if err != nil {
		t.Fatal(err)
	}
	runtime := runtimeClaims(t, provisionAK(t, tpm))
	quote := hardware(t, runtime, func(in []byte) ([]byte, error) {
		resp, err := report.Get(td, &report.Request{InBlob: in})
		if err != nil {
			return nil, err
		}
		return resp.OutBlob, nil
	})
	provisionHCL(t, tpm, 4, []byte("TDREPORT"), runtime)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+tdQuotePath, func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Report string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Report) != base64.RawURLEncoding.EncodedLen(1024) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"quote": base64.RawURLEncoding.EncodeToString(quote)})
	})
	imds := httptest.NewServer(mux)
	defer imds.Close()
	att, err := Open(context.Background(), Options{Method: MethodVTPM, TPM: func() (transport.TPMCloser, error) { return tpm, nil }, IMDS: imds.URL})
	if err != nil {
		t.Fatal(err)
	}
	data := attest.Transcript{Purpose: "test"}.ReportData()
	ev, err := att.Attest(context.Background(), data)
	if err != nil {
		t.Fatal(err)
	}
	collateral, err := td.Collateral()
	if err != nil {
		t.Fatal(err)
	}
	if v := accepted(t, ev, data, collateral); !v.OK || len(v.Registers) != 28 || !v.Collateral {
		t.Errorf("%s", v)
	}
	imds.Close()
	if _, err := att.Attest(context.Background(), data); err == nil {
		t.Error("a quote without the metadata service")
	}
}

func TestATPMWithoutAnHCLReportIsNotAzure(t *testing.T) {
	tpm := newTPM(t)
	if _, err := Open(context.Background(), Options{Method: MethodVTPM, TPM: func() (transport.TPMCloser, error) { return tpm, nil }}); err == nil {
		t.Error("opened")
	}
}
