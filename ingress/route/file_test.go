// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

const example = "../../docs/ingress-routes.example.json"

func readExample(tb testing.TB) []byte {
	tb.Helper()
	text, err := os.ReadFile(example)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestExampleIsAccepted(t *testing.T) {
	tab, err := Parse(readExample(t))
	if err != nil {
		t.Fatal(err)
	}
	f, _ := tab.Lookup(&Request{Host: "bank.example", Path: "/x", Method: "GET"})
	if f.Rule == nil || f.Rule.Timeouts.Request != 30*time.Second || f.Rule.Backends[0].Port.Name != "http" ||
		f.Rule.Backends[0].Protocol != HTTP || f.Rule.Backends[0].Health.Interval != 5*time.Second || f.Rule.Backends[1].Port.Number != 8080 {
		t.Errorf("%+v", f.Rule)
	}
	if r := tab.TCP("bank.example", 5432); r == nil || r.Backends[0].Service != "bank/db" {
		t.Errorf("%+v", r)
	}
	if l := tab.LimitsOf("bank.example"); l.Connections != 2000 || l.BodyBytes != 10<<20 {
		t.Errorf("%+v", l)
	}
}

// file has one route with one rule, whose parts tests change.
const small = `{"schema":"c8s.dev/ingress-routes/v1","routes":[{"name":"r","hosts":["a.example"],"rules":[{"backends":[{"service":"d/s","port":80,"weight":1}]}]}]}`

func TestParseSaysEveryProblemWithItsPath(t *testing.T) {
	if _, err := Parse([]byte(small)); err != nil {
		t.Fatal(err)
	}
	rule := `$.routes[0].rules[0]`
	for _, tc := range []struct{ old, new, want string }{
		{`{"schema"`, `[{"schema"`, "$: expected one JSON value"},
		{`}]}]}]}`, `}]}]}]} x`, "$: expected one JSON value"},
		{`"a.example"`, "\"a\xff.example\"", "$: expected UTF-8"},
		{`/v1"`, `/v2"`, "$.schema"},
		{`"schema":"c8s.dev/ingress-routes/v1",`, ``, "$.schema: expected a value"},
		{`"name":"r"`, `"name":"r","Name":"r"`, `$.routes[0]: expected only keys of this object, got "Name"`},
		{`"name":"r"`, `"name":"r","name":"s"`, `$.routes[0].name: expected each value once`},
		{`"name":"r"`, `"name":"r","Source":"s"`, `$.routes[0]`},
		{`"name":"r"`, `"name":null`, `$.routes[0].name: expected a string, got null`},
		{`["a.example"]`, `"a.example"`, "$.routes[0].hosts: expected an array"},
		{`["a.example"]`, `[]`, "$.routes[0].hosts: expected at least one"},
		{`a.example`, `A.example`, "$.routes[0].hosts[0]"},
		{`a.example`, `a.example.`, "$.routes[0].hosts[0]"},
		{`a.example`, `*.*.example`, "$.routes[0].hosts[0]"},
		{`a.example`, `192.0.2.1`, "$.routes[0].hosts[0]"},
		{`"a.example"`, `"a.example","a.example"`, "$.routes[0].hosts[1]"},
		{`"port":80`, `"port":0`, rule + ".backends[0].port"},
		{`"port":80`, `"port":65536`, rule + ".backends[0].port"},
		{`"port":80`, `"port":1.5`, rule + ".backends[0].port"},
		{`"port":80`, `"port":"a b"`, rule + ".backends[0].port"},
		{`"port":80`, `"port":[]`, rule + ".backends[0].port"},
		{`"weight":1`, `"weight":-1`, rule + ".backends[0].weight"},
		{`"weight":1`, `"weight":4294967295`, rule + ".backends[0].weight"},
		{`"weight":1`, `"weight":1,"protocol":"h2"`, rule + ".backends[0].protocol"},
		{`"weight":1`, `"weight":1,"refuse":"x"`, rule + ".backends[0]"},
		{`"d/s"`, `"s"`, rule + ".backends[0].service"},
		{`"weight":1`, `"weight":1,"health":{"path":"/x","interval":"1ms"}`, rule + ".backends[0].health.interval"},
		{`"backends":`, `"redirect":{},"backends":`, rule + ": expected either"},
		{`"backends":`, `"timeouts":{"request":"5"},"backends":`, rule + ".timeouts.request"},
		{`"backends":`, `"timeouts":{"request":"-5s"},"backends":`, rule + ".timeouts.request"},
		{`"backends":`, `"matches":[{"path":{"type":"regex","value":"/"}}],"backends":`, rule + ".matches[0].path.type"},
		{`"backends":`, `"matches":[{"path":{"type":"exact","value":"/a/../b"}}],"backends":`, rule + ".matches[0].path.value"},
		{`"backends":`, `"matches":[{"path":{"type":"exact","value":"a"}}],"backends":`, rule + ".matches[0].path.value"},
		{`"backends":`, `"matches":[{"method":"get"}],"backends":`, rule + ".matches[0].method"},
		{`"backends":`, `"matches":[{"method":"CONNECT"}],"backends":`, rule + ".matches[0].method"},
		{`"backends":`, `"matches":[{"grpc":{}}],"backends":`, rule + ".matches[0].grpc"},
		{`"backends":`, `"matches":[{"grpc":{"service":"a"},"method":"GET"}],"backends":`, rule + ".matches[0].grpc"},
		{`"backends":`, `"matches":[{"headers":[{"name":"a b","value":""}]}],"backends":`, rule + ".matches[0].headers[0].name"},
		{`"backends":`, `"matches":[{"headers":[{"name":"A","value":"\n"}]}],"backends":`, rule + ".matches[0].headers[0].value"},
		{`"backends":`, `"matches":[{"headers":[{"name":"A","value":""},{"name":"a","value":""}]}],"backends":`, rule + ".matches[0].headers[1].name"},
		{`"backends":`, `"requestHeaders":{"set":[{"name":"Host","value":"x"}]},"backends":`, rule + ".requestHeaders"},
		{`"backends":`, `"requestHeaders":{"add":[{"name":"X-Forwarded-For","value":"x"}]},"backends":`, rule + ".requestHeaders"},
		{`"backends":`, `"responseHeaders":{"remove":["c8s-workload"]},"backends":`, rule + ".responseHeaders"},
		{`"backends":`, `"responseHeaders":{"set":[{"name":"Access-Control-Allow-Origin","value":"https://evil.example"}]},"backends":`, rule + ".responseHeaders"},
		{`"backends":`, `"responseHeaders":{"add":[{"name":"Set-Cookie","value":"session=mine"}]},"backends":`, rule + ".responseHeaders"},
		{`"backends":`, `"requestHeaders":{"set":[{"name":"authorization","value":"Bearer mine"}]},"backends":`, rule + ".requestHeaders"},
		{`"backends":`, `"requestHeaders":{"remove":["Cookie"]},"backends":`, rule + ".requestHeaders"},
		{`"backends":`, `"responseHeaders":{"set":[{"name":"Transfer-Encoding","value":"x"}]},"backends":`, rule + ".responseHeaders"},
		{`"backends":`, `"rewrite":{"path":{}},"backends":`, rule + ".rewrite.path"},
		{`"backends":`, `"matches":[{"path":{"type":"exact","value":"/a"}}],"rewrite":{"path":{"prefix":"/b"}},"backends":`, rule + ".rewrite.path.prefix"},
	} {
		text := strings.Replace(small, tc.old, tc.new, 1)
		if text == small {
			t.Fatalf("%q is not in the file", tc.old)
		}
		tab, err := Parse([]byte(text))
		var invalid *InvalidError
		if !errors.As(err, &invalid) || tab != nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", text, err, tc.want)
		}
	}
}

func TestParseCountsWhatItDoesNotList(t *testing.T) {
	hosts := strings.Repeat(`"X",`, 300) + `"a.example"`
	_, err := Parse([]byte(strings.Replace(small, `"a.example"`, hosts, 1)))
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) != maxProblems || invalid.More < 200 {
		t.Error(err)
	}
	if _, err := Parse([]byte(strings.Repeat("[", 100) + strings.Repeat("]", 100))); err == nil || !strings.Contains(err.Error(), "levels") {
		t.Error("depth:", err)
	}
	if _, err := Parse(make([]byte, MaxFile+1)); err == nil {
		t.Error("size")
	}
}

func TestCheckJudgesOneRoute(t *testing.T) {
	r := leads("r", Match{}, "a.example")
	if p := r.Check(); len(p) != 0 {
		t.Error(p)
	}
	r.Hosts = []string{"UPPER"}
	if p := r.Check(); len(p) != 1 || p[0].Path != "$.hosts[0]" {
		t.Error(p)
	}
	// A backend that cannot be used keeps its share.
	r = leads("r", Match{}, "a.example")
	r.Rules[0].Backends = append(r.Rules[0].Backends, Backend{Weight: 1, Refuse: "no such Service"})
	if p := r.Check(); len(p) != 0 {
		t.Error(p)
	}
	tcp := TCP{Source: "t", Host: "a.example"}
	if p := tcp.Check(); len(p) != 2 {
		t.Error(p)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(readExample(f))
	f.Add([]byte(small))
	f.Add([]byte(`{"schema":"c8s.dev/ingress-routes/v1","routes":[],"tcp":[{"name":"a","host":"*.b.c","port":1,"backends":[]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		tab, err := Parse(text)
		if err != nil {
			return
		}
		for _, name := range tab.Hosts() {
			name = strings.Replace(name, "*", "x", 1)
			if _, ok := tab.Host(name); !ok {
				t.Errorf("%q is a host of the table and is not found", name)
			}
			if f, _ := tab.Lookup(&Request{Host: name, Path: "/a/b", Method: "GET", Query: "a=b"}); f.Rule != nil {
				if b := f.Rule.Pick(1); b == nil && f.Rule.Redirect == nil && f.Rule.weights > 0 {
					t.Error("a rule leads nowhere")
				}
			}
		}
	})
}
