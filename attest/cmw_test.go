// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

func sample() *Evidence {
	return &Evidence{
		TEE: TEESEVSNP, Product: "Milan", Report: bytes.Repeat([]byte{7}, 1184),
		Certs: [][]byte{bytes.Repeat([]byte{1}, 1300), bytes.Repeat([]byte{2}, 1600), {3}},
	}
}

func TestCMWRoundTrips(t *testing.T) {
	for name, e := range map[string]*Evidence{
		"usual":           sample(),
		"no certificates": {TEE: TEESEVSNP, Report: []byte{1}, Certs: [][]byte{}},
		"largest report":  {TEE: TEESEVSNP, Report: make([]byte, MaxReport), Certs: [][]byte{make([]byte, MaxCert)}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := MarshalCMW(e)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseCMW(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e, got); diff != "" {
				t.Error(diff)
			}
			if got.Hash() != e.Hash() {
				t.Error("the hash changed on the way")
			}
		})
	}
}

func TestCMWHasTheLayoutOfRFC9999(t *testing.T) {
	e := &Evidence{TEE: TEESEVSNP, Product: "Milan", Report: []byte{1, 2}, Certs: [][]byte{{3}}}
	got, err := MarshalCMW(e)
	if err != nil {
		t.Fatal(err)
	}
	want := "83" + "7820" + hex.EncodeToString([]byte(MediaTypeSNP)) + // [type,
		"5822" + "a3" + "656365727473" + "81" + "4103" + // value << {"certs": [h'03'],
		"667265706f7274" + "420102" + // "report": h'0102',
		"6770726f64756374" + "654d696c616e" + // "product": "Milan"} >>,
		"04" // evidence]
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
}

func TestCMWMarshalRefusesWhatParseRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Evidence){
		"other TEE":             func(e *Evidence) { e.TEE = "tdx" },
		"no report":             func(e *Evidence) { e.Report = nil },
		"huge report":           func(e *Evidence) { e.Report = make([]byte, MaxReport+1) },
		"many certificates":     func(e *Evidence) { e.Certs = make([][]byte, MaxCerts+1) },
		"empty certificate":     func(e *Evidence) { e.Certs[0] = nil },
		"huge certificate":      func(e *Evidence) { e.Certs[0] = make([]byte, MaxCert+1) },
		"unprintable product":   func(e *Evidence) { e.Product = "Mil\nan" },
		"product that is a lot": func(e *Evidence) { e.Product = string(make([]byte, MaxProduct+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			e := sample()
			edit(e)
			if _, err := MarshalCMW(e); !errors.Is(err, ErrCMW) {
				t.Errorf("MarshalCMW: %v", err)
			}
			if _, err := ParseCMW(encodeRecord(e)); !errors.Is(err, ErrCMW) {
				t.Errorf("ParseCMW: %v", err)
			}
		})
	}
}

func TestCMWParseRefusesOtherEncodings(t *testing.T) {
	good, err := MarshalCMW(sample())
	if err != nil {
		t.Fatal(err)
	}
	value, err := cbor.Marshal(map[string]any{"report": []byte{1}, "certs": [][]byte{}, "product": ""})
	if err != nil {
		t.Fatal(err)
	}
	record := func(typ string, value []byte, rest ...any) []byte {
		b, err := cbor.Marshal(append([]any{typ, value}, rest...))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":              nil,
		"trailing byte":        append(bytes.Clone(good), 0),
		"truncated":            good[:len(good)-1],
		"another type":         record("application/eat+cwt", value, 4),
		"no indicator":         record(MediaTypeSNP, value),
		"reference values":     record(MediaTypeSNP, value, 1),
		"four elements":        record(MediaTypeSNP, value, 4, 0),
		"empty value":          record(MediaTypeSNP, nil, 4),
		"keys in other order":  record(MediaTypeSNP, []byte("\xa3\x66report\x41\x01\x65certs\x80\x67product\x60"), 4),
		"repeated key":         record(MediaTypeSNP, []byte("\xa4\x65certs\x80\x65certs\x80\x66report\x41\x01\x67product\x60"), 4),
		"unknown key":          record(MediaTypeSNP, []byte("\xa4\x61x\x00\x65certs\x80\x66report\x41\x01\x67product\x60"), 4),
		"missing key":          record(MediaTypeSNP, []byte("\xa2\x65certs\x80\x66report\x41\x01"), 4),
		"null certificates":    record(MediaTypeSNP, []byte("\xa3\x65certs\xf6\x66report\x41\x01\x67product\x60"), 4),
		"key of other case":    record(MediaTypeSNP, []byte("\xa3\x65Certs\x80\x66report\x41\x01\x67product\x60"), 4),
		"long form of lengths": record(MediaTypeSNP, []byte("\xa3\x65certs\x80\x66report\x58\x01\x01\x67product\x60"), 4),
		"declared 4 GB":        []byte("\x83\x78\x20" + MediaTypeSNP + "\x5a\xff\xff\xff\xff"),
		"indefinite array":     append(append([]byte{0x9f}, good[1:]...), 0xff),
		"over the cap":         make([]byte, MaxCMW+1),
	} {
		t.Run(name, func(t *testing.T) {
			if e, err := ParseCMW(b); !errors.Is(err, ErrCMW) {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
}

func FuzzParseCMW(f *testing.F) {
	good, err := MarshalCMW(sample())
	if err != nil {
		f.Fatal(err)
	}
	small, err := MarshalCMW(&Evidence{TEE: TEESEVSNP, Product: "Genoa", Report: []byte{1}, Certs: [][]byte{{2}, {3}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(small)
	f.Add([]byte{0x83})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseCMW(b)
		if err != nil {
			return
		}
		again, err := MarshalCMW(e)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("accepted %x but writes %x, %v", b, again, err)
		}
	})
}

func BenchmarkParseCMW(b *testing.B) {
	good, err := MarshalCMW(sample())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseCMW(good); err != nil {
			b.Fatal(err)
		}
	}
}
