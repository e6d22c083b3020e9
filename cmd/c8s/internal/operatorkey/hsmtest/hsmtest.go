// SPDX-License-Identifier: Apache-2.0

//go:build cgo

// Package hsmtest makes PKCS#11 tokens for tests, with the real SoftHSM. A
// token lives as long as its test and is nobody else's.
package hsmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/privileged"
)

// PIN opens every token of this package.
const PIN = "canary-pin-4711"

const soPIN = "12345678"

// Of PKCS#11 3.0; the bindings do not name them.
const mechanismEdwardsKeyPair = 0x1055

// Token is one initialised token.
type Token struct {
	t       testing.TB
	Label   string
	Module  string
	PINFile string
}

// Modules lists where Debian's packages put SoftHSM.
func modules() []string {
	found, _ := filepath.Glob("/usr/lib/*/softhsm/libsofthsm2.so")
	return append(found, "/usr/lib/softhsm/libsofthsm2.so")
}

// New returns a token with the label "operators", or skips the test where
// SoftHSM is missing. SoftHSM finds the token by an environment variable, so
// the test cannot run in parallel with others.
func New(t testing.TB) *Token {
	t.Helper()
	k := &Token{t: t, Label: "operators", PINFile: filepath.Join(t.TempDir(), "pin")}
	for _, path := range modules() {
		if _, err := os.Stat(path); err == nil {
			k.Module = path
			break
		}
	}
	if k.Module == "" {
		privileged.Missing(t, os.Getenv(privileged.RequireEnv), "needs SoftHSM (Debian: softhsm2)")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	must(t, os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nlog.level = ERROR\n"), 0o600))
	must(t, os.WriteFile(k.PINFile, []byte(PIN+"\n"), 0o600))
	t.Setenv("SOFTHSM2_CONF", conf)
	k.AddToken(k.Label)
	return k
}

// AddToken makes another token in the same module.
func (k *Token) AddToken(label string) {
	k.t.Helper()
	k.use(func(c *pkcs11.Ctx) {
		slots, err := c.GetSlotList(true)
		must(k.t, err)
		free := slots[len(slots)-1] // SoftHSM always has one uninitialised token, and lists it last
		must(k.t, c.InitToken(free, soPIN, label))
		slot := k.slot(c, label)
		session, err := c.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		must(k.t, err)
		must(k.t, c.Login(session, pkcs11.CKU_SO, soPIN))
		must(k.t, c.InitPIN(session, PIN))
	})
}

// Key says what Generate makes.
type Key struct {
	Label           string
	ID              []byte
	Algorithm       string // of package policy, or "p384"
	LoginEachTime   bool
	WithoutPublic   bool
	PublicOfAnother bool // the public key beside it is of another pair
}

// Generate makes a key pair on the token.
func (k *Token) Generate(key Key) {
	k.t.Helper()
	k.use(func(c *pkcs11.Ctx) {
		session, err := c.OpenSession(k.slot(c, k.Label), pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		must(k.t, err)
		must(k.t, c.Login(session, pkcs11.CKU_USER, PIN))
		public, _ := k.pair(c, session, key)
		if key.WithoutPublic || key.PublicOfAnother {
			must(k.t, c.DestroyObject(session, public))
		}
		if key.PublicOfAnother {
			_, private := k.pair(c, session, key)
			must(k.t, c.DestroyObject(session, private))
		}
	})
}

func (k *Token) pair(c *pkcs11.Ctx, session pkcs11.SessionHandle, key Key) (public, private pkcs11.ObjectHandle) {
	mechanism, params := uint(pkcs11.CKM_EC_KEY_PAIR_GEN), []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	switch key.Algorithm {
	case policy.AlgorithmEd25519:
		mechanism, params = mechanismEdwardsKeyPair, append([]byte{0x13, 12}, "edwards25519"...)
	case "p384":
		params = []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}
	}
	common := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, key.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, key.ID),
	}
	public, private, err := c.GenerateKeyPair(
		session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)},
		append([]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true)}, common...),
		append([]*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_SIGN, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_AUTHENTICATE, key.LoginEachTime),
		}, common...),
	)
	must(k.t, err)
	return public, private
}

// URI names a key of the token, with the PIN's file.
func (k *Token) URI(object string) string {
	return k.URIWithoutPIN(object) + "&pin-source=" + k.PINFile
}

// URIWithoutPIN leaves the PIN to the environment.
func (k *Token) URIWithoutPIN(object string) string {
	return fmt.Sprintf("pkcs11:token=%s;object=%s?module-path=%s", k.Label, strings.ReplaceAll(object, " ", "%20"), k.Module)
}

func (k *Token) slot(c *pkcs11.Ctx, label string) uint {
	slots, err := c.GetSlotList(true)
	must(k.t, err)
	for _, slot := range slots {
		info, err := c.GetTokenInfo(slot)
		must(k.t, err)
		if info.Label == label {
			return slot
		}
	}
	k.t.Fatalf("no token %q", label)
	return 0
}

// use starts the module for one purpose: it can be started once at a time.
func (k *Token) use(do func(c *pkcs11.Ctx)) {
	c := pkcs11.New(k.Module)
	if c == nil {
		k.t.Fatalf("loading %s failed", k.Module)
	}
	defer c.Destroy()
	must(k.t, c.Initialize())
	defer func() { must(k.t, c.Finalize()) }()
	do(c)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
