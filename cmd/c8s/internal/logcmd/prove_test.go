// SPDX-License-Identifier: Apache-2.0

package logcmd_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

func TestProofsAreCheckedWithoutTheLog(t *testing.T) {
	a := newAuditor(t)
	a.cds.Enrol()
	cred := a.cds.Enrol()
	a.cds.Enrol()
	a.pem("cert.pem", cred)
	a.mustWatch("")
	key := a.bundle().Log

	var got struct {
		Index       int64
		Certificate policy.Digest
		Role        policy.Role
		LogSize     int64
	}
	if err := json.Unmarshal([]byte(a.Must("prove @cert.pem -o json --out @live.json"+a.online()).Out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Index != 4 || got.Certificate != policy.DigestOf(cred.TLS.Leaf.Raw) || got.Role != policy.RoleNode || got.LogSize != 6 {
		t.Errorf("proven %+v", got)
	}
	a.Must("prove @cert.pem --mirror @mirror --out @mirrored.json")
	a.cds.Stop() // nobody is asked any more
	for _, file := range []string{"live.json", "mirrored.json"} {
		if r := a.Must("prove @cert.pem --check @" + file + " --log-key " + key); !strings.Contains(r.Out, "is entry 4 of the log") {
			t.Errorf("%s: %q", file, r.Out)
		}
	}
	a.Must("prove @cert.pem --check @live.json --mirror @mirror")
	a.Refused(exit.Misuse, "prove @cert.pem --check @live.json", "--log-key or --mirror is required")
	a.Refused(exit.Misuse, "prove @cert.pem", "name either a mirror")
	a.Refused(exit.Refused, "prove @cert.pem --mirror @mirror --out @live.json", "the file exists")
}

func TestBadProofsAreRefused(t *testing.T) {
	a := newAuditor(t)
	a.pem("other.pem", a.cds.Enrol())
	a.pem("cert.pem", a.cds.Enrol())
	a.mustWatch("")
	key := a.bundle().Log
	a.Must("prove @cert.pem --mirror @mirror --out @proof.json")
	good := string(a.Read("proof.json"))
	for name, c := range map[string]struct{ text, want string }{
		"another index":     {strings.Replace(good, `"index": 4`, `"index": 3`, 1), "verifying that the record is entry 3"},
		"another entry":     {strings.Replace(good, `\"role\":\"node\"`, `\"role\":\"cds\"`, 1), "verifying that the record is entry"},
		"another log":       {strings.Replace(good, key, "x", 1), "is of the log with the key"},
		"another size":      {strings.Replace(good, `\n5\n`, `\n6\n`, 1), "opening a checkpoint"},
		"an unknown schema": {strings.Replace(good, "/v1", "/v2", 1), "schema"},
		"an unknown field":  {strings.Replace(good, `"index"`, `"x": 1, "index"`, 1), "unknown field"},
		"two proofs":        {good + good, "something follows it"},
		"nothing":           {"", "reading the proof"},
	} {
		if c.text == good {
			t.Fatalf("%s: nothing was changed in %s", name, good)
		}
		a.Write("bad.json", []byte(c.text))
		if r := a.Run("prove @cert.pem --check @bad.json --log-key " + key); r.Code != exit.Refused || !strings.Contains(r.ErrOut, c.want) {
			t.Errorf("%s: exit %d: %q, want %q", name, r.Code, r.ErrOut, c.want)
		}
	}
	a.Refused(exit.Refused, "prove @other.pem --check @proof.json --log-key "+key, "about something else")
	a.Write("nothing.pem", []byte("nothing"))
	a.Refused(exit.Refused, "prove @nothing.pem --check @proof.json --log-key "+key, "it holds no certificate")
}

func TestACertificateThatWasNotLoggedIsNotProven(t *testing.T) {
	a, b := newAuditor(t), newAuditor(t)
	a.pem("foreign.pem", b.cds.Enrol())
	a.Refused(exit.Refused, "prove @foreign.pem"+a.online(), "is not among the log's 3 entries")
}
