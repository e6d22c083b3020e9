// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"slices"
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

func tdxSample() *Evidence {
	return &Evidence{
		TEE: TEETDX, Report: bytes.Repeat([]byte{4}, 5006), EventLog: bytes.Repeat([]byte{5}, 30_000),
		Collateral: []Collateral{
			{Kind: IntelTCBInfo, Body: []byte(`{"tcbInfo":{},"signature":""}`), Certs: [][]byte{{1}, {2}}},
			{Kind: IntelRootCRL, Body: []byte{0x30}},
		},
	}
}

func vtpmSample() *Evidence {
	e := sample()
	e.VTPM = &VTPM{Runtime: []byte("{}"), Quote: []byte{1}, Signature: []byte{2}, PCRs: make([][]byte, numPCR)}
	for i := range e.VTPM.PCRs {
		e.VTPM.PCRs[i] = bytes.Repeat([]byte{byte(i)}, 32)
	}
	e.VTPM.PCRs[3] = []byte{} // not quoted
	return e
}

func TestCMWRoundTrips(t *testing.T) {
	for name, e := range map[string]*Evidence{
		"usual":           sample(),
		"no certificates": {TEE: TEESEVSNP, Report: []byte{1}},
		"TDX":             tdxSample(),
		"behind a vTPM":   vtpmSample(),
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
			text, err := MarshalCMWJSON(e)
			if err != nil {
				t.Fatal(err)
			}
			if got, err = ParseCMW(text); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e, got); diff != "" {
				t.Errorf("as JSON: %s", diff)
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
		"other TEE":             func(e *Evidence) { e.TEE = "sgx" },
		"TDX with certificates": func(e *Evidence) { e.TEE, e.Product = TEETDX, "" },
		"TDX with a product":    func(e *Evidence) { e.TEE, e.Certs = TEETDX, nil },
		"SNP with an event log": func(e *Evidence) { e.EventLog = []byte{1} },
		"huge event log":        func(e *Evidence) { *e = *tdxSample(); e.EventLog = make([]byte, MaxEventLog+1) },
		"no runtime claims":     func(e *Evidence) { *e = *vtpmSample(); e.VTPM.Runtime = nil },
		"huge runtime claims":   func(e *Evidence) { *e = *vtpmSample(); e.VTPM.Runtime = make([]byte, MaxRuntime+1) },
		"no quote":              func(e *Evidence) { *e = *vtpmSample(); e.VTPM.Quote = nil },
		"huge signature":        func(e *Evidence) { *e = *vtpmSample(); e.VTPM.Signature = make([]byte, MaxQuote+1) },
		"25 registers":          func(e *Evidence) { *e = *vtpmSample(); e.VTPM.PCRs = make([][]byte, 25) },
		"short register":        func(e *Evidence) { *e = *vtpmSample(); e.VTPM.PCRs[0] = []byte{1} },
		"unknown collateral":    func(e *Evidence) { e.Collateral = []Collateral{{Kind: "x", Body: []byte{1}}} },
		"empty collateral":      func(e *Evidence) { e.Collateral = []Collateral{{Kind: AMDCRL}} },
		"huge collateral": func(e *Evidence) {
			e.Collateral = []Collateral{{Kind: AMDCRL, Body: make([]byte, MaxCollateralBody+1)}}
		},
		"much collateral": func(e *Evidence) {
			e.Collateral = slices.Repeat([]Collateral{{Kind: AMDCRL, Body: []byte{1}}}, MaxCollateral+1)
		},
		"over the cap": func(e *Evidence) {
			e.Collateral = slices.Repeat([]Collateral{{Kind: AMDCRL, Body: make([]byte, MaxCollateralBody)}}, 4)
		},
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
	value, err := cbor.Marshal(map[string]any{"report": []byte{1}})
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
		"keys in other order":  record(MediaTypeSNP, []byte("\xa2\x67product\x61M\x66report\x41\x01"), 4),
		"repeated key":         record(MediaTypeSNP, []byte("\xa2\x66report\x41\x01\x66report\x41\x01"), 4),
		"unknown key":          record(MediaTypeSNP, []byte("\xa2\x61x\x00\x66report\x41\x01"), 4),
		"no report":            record(MediaTypeSNP, []byte("\xa1\x65certs\x81\x41\x01"), 4),
		"empty certificates":   record(MediaTypeSNP, []byte("\xa2\x65certs\x80\x66report\x41\x01"), 4),
		"null certificates":    record(MediaTypeSNP, []byte("\xa2\x65certs\xf6\x66report\x41\x01"), 4),
		"empty product":        record(MediaTypeSNP, []byte("\xa2\x66report\x41\x01\x67product\x60"), 4),
		"key of other case":    record(MediaTypeSNP, []byte("\xa1\x66Report\x41\x01"), 4),
		"long form of lengths": record(MediaTypeSNP, []byte("\xa1\x66report\x58\x01\x01"), 4),
		"value with a tail":    record(MediaTypeSNP, []byte("\xa1\x66report\x41\x01\x00"), 4),
		"tag":                  record(MediaTypeSNP, []byte("\xa1\x66report\xc1\x41\x01"), 4),
		"JSON of two":          []byte(`["application/vnd.c8s.sev-snp+cbor","oWZyZXBvcnRBAQ"]`),
		"JSON of four":         []byte(`["application/vnd.c8s.sev-snp+cbor","oWZyZXBvcnRBAQ",4,4]`),
		"JSON indicator 1":     []byte(`["application/vnd.c8s.sev-snp+cbor","oWZyZXBvcnRBAQ",1]`),
		"JSON indicator 4.0":   []byte(`["application/vnd.c8s.sev-snp+cbor","oWZyZXBvcnRBAQ",4.0]`),
		"JSON with padding":    []byte(`["application/vnd.c8s.sev-snp+cbor","oWZyZXBvcnRBAQ==",4]`),
		"JSON with a tail":     []byte(`["application/vnd.c8s.sev-snp+cbor","oWZyZXBvcnRBAQ",4]x`),
		"JSON with loose bits": []byte(`["application/vnd.c8s.sev-snp+cbor","oWZyZXBvcnRBAR",4]`),
		"JSON of another type": []byte(`["application/eat+cwt","oWZyZXBvcnRBAQ",4]`),
		"JSON over the cap":    append([]byte("["), make([]byte, 2*MaxCMW)...),
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
	for _, e := range []*Evidence{tdxSample(), vtpmSample()} {
		cmw, err := MarshalCMW(e)
		if err != nil {
			f.Fatal(err)
		}
		text, err := MarshalCMWJSON(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(cmw)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseCMW(b)
		if err != nil {
			return
		}
		if b[0] == '[' {
			return // white space may differ
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

func BenchmarkHash(b *testing.B) {
	e := sample()
	b.ReportAllocs()
	for b.Loop() {
		e.Hash()
	}
}

func TestCollateralIsNotPartOfTheHash(t *testing.T) {
	e := tdxSample()
	hash := e.Hash()
	if e.Collateral = nil; e.Hash() != hash {
		t.Error("fresher collateral makes other evidence")
	}
	if e.EventLog = nil; e.Hash() == hash {
		t.Error("the event log is not part of the hash")
	}
}

func TestParsedEvidenceSharesNoMemory(t *testing.T) {
	for _, marshal := range []func(*Evidence) ([]byte, error){MarshalCMW, MarshalCMWJSON} {
		b, err := marshal(vtpmSample())
		if err != nil {
			t.Fatal(err)
		}
		e, err := ParseCMW(b)
		if err != nil {
			t.Fatal(err)
		}
		clear(b)
		if diff := cmp.Diff(vtpmSample(), e); diff != "" {
			t.Error(diff)
		}
	}
}

func TestExtensionTakesBothForms(t *testing.T) {
	cmw, err := MarshalCMW(sample())
	if err != nil {
		t.Fatal(err)
	}
	text, err := MarshalCMWJSON(sample())
	if err != nil {
		t.Fatal(err)
	}
	der, err := EncodeExtension(cmw)
	if err != nil {
		t.Fatal(err)
	}
	utf8, err := asn1.MarshalWithParams(string(text), "utf8")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		der  []byte
		want []byte
	}{
		"CBOR":                     {der, cmw},
		"JSON":                     {utf8, text},
		"nothing":                  {nil, nil},
		"tail":                     {append(bytes.Clone(der), 0), nil},
		"JSON in an OCTET STRING":  {append([]byte{4, 2}, "[]"...), nil},
		"CBOR in a UTF8String":     {[]byte{12, 1, 0x60}, nil},
		"an IA5String":             {append([]byte{22, 2}, "[]"...), nil},
		"an empty OCTET STRING":    {[]byte{4, 0}, nil},
		"a constructed one":        {[]byte{0x24, 3, 4, 1, 0x80}, nil},
		"a length beyond the end":  {[]byte{4, 9, 1}, nil},
		"of the application class": {[]byte{0x44, 1, 0x83}, nil},
	} {
		got, err := DecodeExtension(c.der)
		if (err == nil) != (c.want != nil) || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func FuzzDecodeExtension(f *testing.F) {
	f.Add([]byte{4, 1, 0x83})
	f.Add([]byte{12, 2, '[', ']'})
	f.Fuzz(func(_ *testing.T, b []byte) {
		if cmw, err := DecodeExtension(b); err == nil {
			_, _ = ParseCMW(cmw)
		}
	})
}
