// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

func sample() *PodStatement {
	return &PodStatement{
		Nonce: make([]byte, NonceSize), Exporter: make([]byte, exporterSize), SPKIHash: make([]byte, 32), Evidence: make([]byte, 32),
		Namespace: "default", Name: "web-0", UID: "uid", Images: []policy.Digest{policy.DigestOf([]byte("image"))},
		Addrs: [][]byte{{10, 81, 1, 2}, append([]byte{0xfd}, make([]byte, 15)...)},
	}
}

func TestStatementHasOneForm(t *testing.T) {
	raw, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParsePodStatement(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := got.Marshal(); err != nil || !bytes.Equal(again, raw) {
		t.Error("parsed and written again, the statement differs")
	}
}

// A statement without signatures has ten members, as before there were any:
// its bytes are what nodes and pods have signed.
func TestSignaturesAreOptional(t *testing.T) {
	plain, err := sample().Marshal()
	if err != nil || plain[0] != 0xaa {
		t.Fatalf("a map of %#x members; %v", plain[0], err)
	}
	s := signedSample()
	raw, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParsePodStatement(raw)
	if err != nil || len(got.Signed) != 1 || got.Signed[0] != s.Signed[0] {
		t.Errorf("read %+v; %v", got, err)
	}
	empty := append([]byte{0xab}, plain[1:]...)
	if _, err := ParsePodStatement(append(empty, 0x0b, 0x80)); err == nil {
		t.Error("an empty list of signatures is a second form")
	}
}

func signedSample() *PodStatement {
	s := sample()
	s.Signed = []SignedImage{{Digest: s.Images[0], Signer: policy.DigestOf([]byte("key"))}}
	return s
}

func TestStatementRefusals(t *testing.T) {
	for name, edit := range map[string]func(*PodStatement){
		"short nonce":        func(s *PodStatement) { s.Nonce = s.Nonce[1:] },
		"long exporter":      func(s *PodStatement) { s.Exporter = append(s.Exporter, 0) },
		"no key hash":        func(s *PodStatement) { s.SPKIHash = nil },
		"half of a hash":     func(s *PodStatement) { s.Evidence = s.Evidence[:16] },
		"no namespace":       func(s *PodStatement) { s.Namespace = "" },
		"no name":            func(s *PodStatement) { s.Name = "" },
		"no UID":             func(s *PodStatement) { s.UID = "" },
		"endless name":       func(s *PodStatement) { s.Name = strings.Repeat("x", maxStatementText) },
		"no image":           func(s *PodStatement) { s.Images = nil },
		"too many images":    func(s *PodStatement) { s.Images = make([]policy.Digest, maxImages+1) },
		"no address":         func(s *PodStatement) { s.Addrs = nil },
		"too many addresses": func(s *PodStatement) { s.Addrs = make([][]byte, maxAddrs+1) },
		"address of 5 bytes": func(s *PodStatement) { s.Addrs = [][]byte{{1, 2, 3, 4, 5}} },
		"unspecified":        func(s *PodStatement) { s.Addrs = [][]byte{{0, 0, 0, 0}} },
		"loopback":           func(s *PodStatement) { s.Addrs = [][]byte{{127, 0, 0, 1}} },
		"signature of no image": func(s *PodStatement) {
			s.Signed = []SignedImage{{Digest: policy.DigestOf(nil), Signer: policy.DigestOf(nil)}}
		},
		"signature by no key": func(s *PodStatement) { s.Signed = []SignedImage{{Digest: s.Images[0]}} },
		"too many signatures": func(s *PodStatement) {
			for range maxImages + 1 {
				s.Signed = append(s.Signed, SignedImage{Digest: s.Images[0], Signer: policy.DigestOf(nil)})
			}
		},
		"multicast": func(s *PodStatement) { s.Addrs = [][]byte{{224, 0, 0, 1}} },
	} {
		s := sample()
		edit(s)
		raw, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePodStatement(raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	raw, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePodStatement(append(raw, 0)); err == nil {
		t.Error("trailing data: accepted")
	}
	if _, err := ParsePodStatement(make([]byte, maxStatement+1)); err == nil {
		t.Error("an oversize statement: accepted")
	}
}

func FuzzPodStatement(f *testing.F) {
	raw, err := sample().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	if raw, err = signedSample().Marshal(); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{0xa0})
	f.Add([]byte{0xbf, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParsePodStatement(raw)
		if err != nil {
			return
		}
		if again, err := s.Marshal(); err != nil || !bytes.Equal(again, raw) {
			t.Fatal("accepted a second form of a statement")
		}
		if _, err := s.Addresses(); err != nil {
			t.Fatalf("accepted a statement without usable addresses: %v", err)
		}
	})
}
