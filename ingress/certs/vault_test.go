// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

func TestStateThatCannotBeReadIsPutAside(t *testing.T) {
	for name, tt := range map[string]struct {
		damage func(sealed []byte) []byte
		edit   func(c *Config)
	}{
		"empty":               {damage: func([]byte) []byte { return nil }},
		"truncated":           {damage: func(b []byte) []byte { return b[:len(b)/2] }},
		"header only":         {damage: func(b []byte) []byte { return b[:sealHeader] }},
		"one bit":             {damage: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		"nonce":               {damage: func(b []byte) []byte { b[len(sealMagic)] ^= 1; return b }},
		"another version":     {damage: func(b []byte) []byte { b[len(sealMagic)-2] = '2'; return b }},
		"more after it":       {damage: func(b []byte) []byte { return append(b, 0) }},
		"another measurement": {edit: func(c *Config) { c.Sealer = sealer(2) }},
		"another mesh":        {edit: func(c *Config) { c.TrustDomain = "other.test" }},
	} {
		w, s := developer(t, "bank.example")
		key := s.state.keys[0].id
		sealed := mustRead(t, w.cfg.Path)
		if tt.damage != nil {
			sealed = tt.damage(sealed)
			if err := os.WriteFile(w.cfg.Path, sealed, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if tt.edit != nil {
			tt.edit(&w.cfg)
		}
		s = w.open()
		if s.state.keys[0].id == key {
			t.Errorf("%s: the old key", name)
		}
		s.step(t.Context())
		if st := stateOf(t, s, "bank.example"); st.State != StateValid {
			t.Errorf("%s: %v", name, st)
		}
		aside, err := filepath.Glob(w.cfg.Path + ".refused-*")
		if err != nil || len(aside) != 1 || !bytes.Equal(mustRead(t, aside[0]), sealed) {
			t.Errorf("%s: aside is %v", name, aside)
		}
		if said := string(w.log.bytes()); strings.Count(said, CodeState) != 1 {
			t.Errorf("%s: the log does not say so", name)
		}
		// What was started afresh is kept.
		key = s.state.keys[0].id
		if s = w.open(); s.state.keys[0].id != key {
			t.Errorf("%s: the new state is not kept", name)
		}
	}
}

// A downgrade of the ingress finds what it had sealed, if somebody puts it back.
func TestStatePutAsideCanBePutBack(t *testing.T) {
	w, s := developer(t, "bank.example")
	key := s.state.keys[0].id
	w.cfg.Sealer = sealer(2)
	w.open().step(t.Context())
	aside, _ := filepath.Glob(w.cfg.Path + ".refused-*")
	if err := os.Rename(aside[0], w.cfg.Path); err != nil {
		t.Fatal(err)
	}
	w.cfg.Sealer = sealer(1)
	if s = w.open(); s.state.keys[0].id != key {
		t.Error("another key")
	}
}

type noSealer struct{ err error }

func (n noSealer) SealingKey(context.Context, string) ([32]byte, error) { return [32]byte{}, n.err }

func TestNothingIsKeptWhereNothingCanBeSealed(t *testing.T) {
	for name, s := range map[string]attest.Sealer{"no sealer": nil, "TEE without keys": noSealer{fmt.Errorf("asking: %w", attest.ErrNoSealing)}} {
		w := newWorld(t, "bank.example")
		w.cfg.SelfSigned, w.cfg.Sealer = true, s
		st := w.open()
		st.step(t.Context())
		st.step(t.Context())
		if _, err := os.Stat(w.cfg.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if n := strings.Count(string(w.log.bytes()), "seals nothing"); n != 1 {
			t.Errorf("%s: said %d times", name, n)
		}
	}
	for name, s := range map[string]attest.Sealer{"TEE that fails": noSealer{errors.New("broken")}, "empty key": noSealer{}} {
		w := newWorld(t, "bank.example")
		w.cfg.SelfSigned, w.cfg.Sealer = true, s
		if _, err := Open(t.Context(), w.cfg); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// secrets are the private parts of all keys of a store, in every form that a
// file or a log line could hold them.
func secrets(t *testing.T, s *Store) (all [][]byte) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	add := func(private any, d []byte) {
		pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		// The tail of the base64 form depends on where the key begins in it.
		all = append(all, d, []byte(hex.EncodeToString(d)), []byte(strings.ToUpper(hex.EncodeToString(d))), pkcs8, []byte(fmt.Sprint(d)))
		for skip := range 3 {
			all = append(all, []byte(base64.RawStdEncoding.EncodeToString(d[skip:])[:40]), []byte(base64.RawURLEncoding.EncodeToString(d[skip:])[:40]))
		}
	}
	for _, k := range s.state.keys {
		d, err := k.private.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		add(k.private, d)
		all = append(all, []byte(new(big.Int).SetBytes(d).String()))
	}
	for _, a := range s.state.accounts {
		d, err := a.private.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		add(a.private, d)
	}
	return all
}

func TestNoPrivateKeyIsOnTheDiskOrInTheLog(t *testing.T) {
	l := newLiar(t)
	w := newWorld(t, "bank.example")
	eab := []byte("external-account-key-0123456789!")
	w.cfg.ACME, w.cfg.KeyPeriod = l.acme(), 24*time.Hour
	w.cfg.ACME.EAB = &EAB{KeyID: "ours", Key: eab}
	s := w.open()
	found := secrets(t, s)
	s.step(t.Context())
	w.clock.move(25 * time.Hour)
	l.on("newOrder", refuse(403, "caa", ""))
	s.step(t.Context())
	found = append(found, secrets(t, s)...)
	found = append(found, eab, []byte(base64.RawURLEncoding.EncodeToString(eab)))
	w.cfg.Sealer = sealer(3)
	s = w.open()
	found = append(found, secrets(t, s)...)
	s.step(t.Context())
	said := w.log.bytes()
	said = fmt.Appendf(said, "%v %+v %v %+v %#v", s.Status(), s.Status(), w.cfg.ACME.EAB, *w.cfg.ACME.EAB, *w.cfg.ACME.EAB)
	files := 0
	err := filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		said = append(said, mustRead(t, path)...)
		return nil
	})
	if err != nil || files < 2 {
		t.Fatalf("%d files, %v", files, err)
	}
	for i, secret := range found {
		if bytes.Contains(said, secret) {
			t.Errorf("secret %d of %d is there to see", i, len(found))
		}
	}
	if len(found) < 40 {
		t.Errorf("%d secrets", len(found))
	}
}

func TestFullDiskStopsOrdersButNotServing(t *testing.T) {
	w, l, s := liarWorld(t)
	before := mustRead(t, w.cfg.Path)
	full := true
	put := s.vault.put
	s.vault.put = func(path string, content []byte) error {
		if full {
			return fmt.Errorf("write: %w", syscall.ENOSPC)
		}
		return put(path, content)
	}
	served := stateOf(t, s, "bank.example")
	w.clock.move(61 * 24 * time.Hour)
	orders := l.counted("newOrder")
	s.step(t.Context())
	if l.counted("newOrder") != orders {
		t.Error("an order that is not on the disk")
	}
	wantProblem(t, s, "bank.example", CodeUnsaved)
	if st := stateOf(t, s, "bank.example"); st.Serial != served.Serial {
		t.Errorf("%v", st)
	}
	// A name without any certificate cannot wait for somebody to make room.
	if err := s.SetNames([]string{"bank.example", "new.example"}); err != nil {
		t.Fatal(err)
	}
	s.step(t.Context())
	if st := stateOf(t, s, "new.example"); st.State != StateValid {
		t.Errorf("%v", st)
	}
	if !bytes.Equal(mustRead(t, w.cfg.Path), before) {
		t.Error("the file changed")
	}
	full = false
	w.clock.move(2 * time.Minute)
	s.step(t.Context())
	wantProblem(t, s, "bank.example", "")
	w.cfg.Names = []string{"bank.example", "new.example"}
	s = w.open()
	for _, name := range w.cfg.Names {
		if st := stateOf(t, s, name); st.State != StateValid || st.Serial == served.Serial {
			t.Errorf("after a restart: %v", st)
		}
	}
}

func FuzzSealedState(f *testing.F) {
	seed := newState()
	key, err := newKey(time.Unix(1e9, 0))
	if err != nil {
		f.Fatal(err)
	}
	seed.keys = []*tlsKey{key}
	record, err := selfSigned(key, []string{"bank.example"}, time.Unix(1e9, 0))
	if err != nil {
		f.Fatal(err)
	}
	seed.certs[unitSelf], seed.accounts["https://ca.example"] = record, &account{private: key.private, uri: "x"}
	seed.triesOf("bank.example").Orders = []time.Time{time.Unix(1e9, 0)}
	plain, err := seed.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	for _, s := range []string{"", "{}", `{"keys":[]}`, `{"keys":[{"pkcs8":"","made":"2026-01-01T00:00:00Z"}]}`, `{"keys":null}{}`, "null", sealMagic} {
		f.Add([]byte(s))
	}
	v, err := openVault(context.Background(), Config{Sealer: sealer(1), Path: "x", TrustDomain: domain})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if _, err := v.open(input); err == nil {
			t.Error("opened what nobody sealed")
		}
		s, err := parseState(input)
		if err != nil {
			return
		}
		if len(s.keys) == 0 || s.prune(time.Unix(1e9, 0), sourceSelf, []string{"bank.example"}) && len(s.keys) == 0 {
			t.Fatal("a state without a key")
		}
		again, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseState(again); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}

func FuzzChain(f *testing.F) {
	key, err := newKey(time.Unix(1e9, 0))
	if err != nil {
		f.Fatal(err)
	}
	record, err := selfSigned(key, []string{"bank.example"}, time.Unix(1e9, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pemOf(record.tls.Certificate...))
	f.Add(pemOf(record.leaf.Raw, record.leaf.Raw))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	s := newState()
	s.keys = []*tlsKey{key}
	f.Fuzz(func(t *testing.T, input []byte) {
		chain, err := readPEM(input)
		if err != nil {
			if CodeOf(err) != CodeUnreadable {
				t.Fatal(err)
			}
			return
		}
		leaf, found, err := wanted{state: s, names: []string{"bank.example"}, now: time.Unix(1e9, 0)}.check(chain)
		if err == nil && (found != key || leaf.DNSNames == nil) {
			t.Fatal("taken for another key")
		}
		if err != nil && CodeOf(err) == "" {
			t.Fatal(err)
		}
	})
}
