// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/kernels/console"
)

var lines = map[string]console.Line{
	"KERNEL BOOT 6.1.0-50-cloud-amd64":                             {Verb: console.Boot, Text: "6.1.0-50-cloud-amd64"},
	"KERNEL INFO tcx missing (since 6.6): no":                      {Verb: console.Info, Name: "tcx", Text: "missing (since 6.6): no"},
	"KERNEL VERIFIED steer 460":                                    {Verb: console.Verified, Name: "steer", Text: "460"},
	"KERNEL PASS loader TestX 1.25":                                {Verb: console.Pass, Suite: "loader", Name: "TestX", Took: 1250 * time.Millisecond},
	"KERNEL FAIL test/e2e TestX/a_b 0.00":                          {Verb: console.Fail, Suite: "test/e2e", Name: "TestX/a_b"},
	"KERNEL SKIP bpf TestY 0.50 this kernel lacks tcx (since 6.6)": {Verb: console.Skip, Suite: "bpf", Name: "TestY", Took: 500 * time.Millisecond, Text: "this kernel lacks tcx (since 6.6)"},
	"KERNEL END": {Verb: console.End},
}

func TestLineIsReadAsItWasWritten(t *testing.T) {
	for text, want := range lines {
		if got := want.String(); got != text {
			t.Errorf("wrote %q, want %q", got, text)
		}
		if got, ok := console.Parse(text + "\r\n"); !ok || got != want {
			t.Errorf("%q: read %+v, %t", text, got, ok)
		}
	}
}

func TestWhatIsNotOfTheProtocolIsNoLine(t *testing.T) {
	for _, s := range []string{"", "PASS", "| KERNEL END", "KERNEL", "KERNEL ", "KERNEL DONE", "KERNEL PASS", "KERNEL PASS a b", "KERNEL PASS a b x", "KERNEL PASS a b -1", "KERNEL PASS a b 1e99", "KERNEL INFO"} {
		if l, ok := console.Parse(s); ok || l != (console.Line{}) {
			t.Errorf("%q: %+v, %t", s, l, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	for text := range lines {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := console.Parse(s)
		if !ok {
			return
		}
		again, ok := console.Parse(l.String())
		// The time is written in hundredths, and white space as one blank.
		if !ok || again.Verb != l.Verb || again.Suite != l.Suite || again.Name != l.Name {
			t.Errorf("%q: %+v is written as %q", s, l, l)
		}
	})
}

// What package testing prints with -test.v=test2json.
const output = "\x16=== RUN   TestGood\n" +
	"    good_test.go:7: all is well\n" +
	"\x16--- PASS: TestGood (0.10s)\n" +
	"\x16=== RUN   TestBad\n\x16=== RUN   TestBad/one\n" +
	"    bad_test.go:9: got 1, want 2\n" +
	"\x16--- FAIL: TestBad/one (0.20s)\n" +
	"\x16=== RUN   TestBad/two\n" +
	"    bad_test.go:5: this kernel lacks tcx\n" +
	"\x16--- SKIP: TestBad/two (0.00s)\n" +
	"\x16=== RUN   TestBad/three\n\x16--- PASS: TestBad/three (0.00s)\n" +
	"\x16--- FAIL: TestBad (0.30s)\n"

func TestOutputOfTestsIsTranslated(t *testing.T) {
	var out strings.Builder
	passed, tests := console.Translate("bpf", strings.NewReader(output+"FAIL\n"), &out)
	want := `KERNEL PASS bpf TestGood 0.10
|     bad_test.go:9: got 1, want 2
KERNEL FAIL bpf TestBad/one 0.20
KERNEL SKIP bpf TestBad/two 0.00 this kernel lacks tcx
|     bad_test.go:5: this kernel lacks tcx
KERNEL FAIL bpf TestBad 0.30
| FAIL
`
	if passed || tests != 2 || out.String() != want {
		t.Errorf("passed %t, %d tests, got\n%s", passed, tests, &out)
	}
}

func TestOnlyABinaryThatSaysSoHasPassed(t *testing.T) {
	for end, want := range map[string]bool{"\x16PASS\n": true, "PASS\n": true, "": false, "panic: no\n\ngoroutine 1:\n": false} {
		var out strings.Builder
		passed, _ := console.Translate("bpf", strings.NewReader("\x16--- PASS: TestA (0.00s)\n"+end), &out)
		if passed != want {
			t.Errorf("%q: passed %t", end, passed)
		}
		if strings.Contains(end, "panic") && !strings.Contains(out.String(), "| panic: no") {
			t.Errorf("the panic is not in %q", &out)
		}
	}
}

func TestTestCannotForgeALineOfTheProtocol(t *testing.T) {
	var out strings.Builder
	console.Translate("bpf", strings.NewReader("KERNEL PASS bpf TestForged 0.00\n--- FAIL: TestA (0.00s)\nFAIL\n"), &out)
	for line := range strings.Lines(out.String()) {
		if l, ok := console.Parse(line); ok && l.Name == "TestForged" {
			t.Errorf("got %q", line)
		}
	}
}
