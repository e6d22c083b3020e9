// SPDX-License-Identifier: Apache-2.0

package clientcmd_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/client"
	"github.com/c8s-dev/c8s/client/clienttest"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/receipt"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/clientcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func command() *cobra.Command {
	c := &cobra.Command{Use: "c8s"}
	c.AddCommand(clientcmd.Commands()...)
	return c
}

// site is a user's desk and an ingress.
type site struct {
	*desktest.Desk
	w  *clienttest.World
	in *clienttest.Ingress
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Desk: desktest.New(t, command), w: clienttest.New(t)}
	s.w.TrustIn(s.Dir)
	s.in = s.w.Ingress()
	s.Write("web.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.in.Leaf().Raw}))
	return s
}

// flags are those of every command here.
func (s *site) flags() string {
	return " --operators @operators.json --cacert @web.pem --state @state --connect " + s.in.Addr()
}

const url = "https://" + clienttest.Host

func TestVerifyShowsEveryStep(t *testing.T) {
	s := newSite(t)
	got := s.Run("verify " + url + s.flags() + " --save @proof")
	if got.Code != exit.Partial || !strings.Contains(got.Out, "PARTLY PROVEN, for "+url) || !strings.Contains(got.ErrOut, "cds-hardware") {
		t.Errorf("exit %d:\n%s%s", got.Code, got.Out, got.ErrOut)
	}
	for _, name := range []string{"report.json", "attestation.json", "cds/v1/manifest", "cds/v1/endorsement", "cds/log/checkpoint"} {
		if len(s.Read("proof/"+name)) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
	s.Refused(exit.Refused, "verify "+url+s.flags()+" --save @proof", "exists")
	var r client.Report
	got = s.Run("verify " + clienttest.Host + s.flags() + " --nonce -o json")
	if err := json.Unmarshal([]byte(got.Out), &r); err != nil || r.Overall != client.Partly || len(r.Steps) < 20 {
		t.Errorf("%v: %s", err, got.Out)
	}
	s.in.NothingArrived(t)
}

func TestVerifySaysWhatIsRefuted(t *testing.T) {
	s := newSite(t)
	s.in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = rw.Write(s.in.AttestationFor(r.Context(), [32]byte{1}, nil))
	})
	got := s.Run("verify " + url + s.flags())
	if got.Code != exit.Refused || !strings.Contains(got.Out, "REFUTED  tls-key") || !strings.Contains(got.ErrOut, "do not use "+url) {
		t.Errorf("exit %d:\n%s%s", got.Code, got.Out, got.ErrOut)
	}
}

func TestWrongUsage(t *testing.T) {
	d := desktest.New(t, command)
	for line, want := range map[string]string{
		"verify " + url: "--operators or --cds-policy is required",
		"verify":        "accepts 1 arg",
		"verify " + url + " --max-age 0s --operators @operators.json": "must be positive",
		"curl http://bank.example":                                    "only https",
		"curl " + url + " -H nothing":                                 "no 'Name: value'",
		"proxy":                                                       "nothing to do",
		"proxy --listen 127.0.0.1:0":                                  "go together",
		"proxy --tcp 127.0.0.1:0":                                     "ADDR=HOST:PORT",
		"proxy --listen 0.0.0.0:0 --to " + url:                        "can be reached by others",
		"proxy --listen 127.0.0.1:0 --to http://x":                    "must be an https URL",
		"receipt verify x":                                            "--key is required",
		"verify " + url + " --operators x --cds-policy y":             "--cds-policy and --operators exclude each other",
		"verify http://bank.example --operators nowhere":              "only https URLs can be proven",
		"curl -d a -I " + url + " --operators nowhere":                "--data and --head exclude each other",
	} {
		if strings.Contains(line, "@operators") {
			d.Write("operators.json", operatorsFile(t))
		}
		if got := d.Run(line); got.Code != exit.Misuse || !strings.Contains(got.ErrOut, want) {
			t.Errorf("%q: exit %d, %q, want %q", line, got.Code, got.ErrOut, want)
		}
	}
}

func TestEveryFlagMayComeFromTheEnvironment(t *testing.T) {
	d := desktest.New(t, command)
	t.Setenv("C8S_FLAG_LISTEN", "0.0.0.0:0")
	t.Setenv("C8S_FLAG_HEADER", "nothing")
	d.Refused(exit.Misuse, "proxy --to "+url, "can be reached by others")
	d.Refused(exit.Misuse, "curl "+url, "no 'Name: value'")
}

func TestAnchorFromTheEnvironment(t *testing.T) {
	s := newSite(t)
	t.Setenv("C8S_FLAG_OPERATORS", s.Path("operators.json"))
	t.Setenv("C8S_FLAG_UNKNOWN_TO_THIS", "1")
	flags := strings.Replace(s.flags(), "--operators @operators.json", "", 1) + " --allow-simulated"
	if got := s.Must("curl -sS " + url + flags); got.Out != "hello HTTP/2.0" {
		t.Errorf("%q", got.Out)
	}
	s.Refused(exit.Misuse, "curl "+url+flags+" --cds-policy @operators.json", "exclude each other")
}

func operatorsFile(t *testing.T) []byte {
	t.Helper()
	o, _ := policytest.Operators(t, 1, 1)
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestCurlSendsWhatCurlSends(t *testing.T) {
	s := newSite(t)
	s.in.Use(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %s %s|%s|%s|%s", r.Method, r.URL, r.Proto, r.Header.Get("Content-Type"), r.Header.Get("X-A"), body)
	})
	s.Write("data", []byte("a\r\nb\n"))
	for line, want := range map[string]string{
		"curl " + url + "/x?y":                           "GET /x?y HTTP/2.0|||",
		"curl --http1.1 -H X-A:1 " + url:                 "GET / HTTP/1.1||1|",
		"curl -d a=1 -d b=2 " + url:                      "POST / HTTP/2.0|application/x-www-form-urlencoded||a=1&b=2",
		"curl -d @data " + url:                           "POST / HTTP/2.0|application/x-www-form-urlencoded||ab",
		"curl --data-binary @data " + url:                "POST / HTTP/2.0|application/x-www-form-urlencoded||a\r\nb\n",
		"curl --json {} -X PATCH " + url:                 "PATCH / HTTP/2.0|application/json||{}",
		"curl -N -H Content-Type:text/plain -d x " + url: "POST / HTTP/2.0|text/plain||x",
	} {
		words := strings.Fields(line + s.flags() + " --allow-simulated")
		for i, word := range words {
			switch {
			case word == "@data":
				words[i] = "@" + s.Path("data")
			case strings.HasPrefix(word, "@"):
				words[i] = s.Path(word[1:])
			}
		}
		if got := s.RunArgs(words...); got.Code != exit.OK || got.Out != want {
			t.Errorf("%s: exit %d, %q, want %q: %s", line, got.Code, got.Out, want, got.ErrOut)
		}
	}
	s.Stdin = "streamed"
	if got := s.Run("curl -T - " + url + s.flags() + " --allow-simulated"); got.Out != "PUT / HTTP/2.0|||streamed" {
		t.Errorf("%q %s", got.Out, got.ErrOut)
	}
}

func TestCurlSendsNothingUnproven(t *testing.T) {
	s := newSite(t)
	s.Refused(exit.Refused, "curl -d secret "+url+s.flags(), "step cds-hardware: simulated")
	s.in.Answer(proof.PathAttestation, http.NotFound)
	s.Refused(exit.Refused, "curl --allow-simulated -d secret "+url+s.flags(), "nothing was sent")
	s.in.NothingArrived(t)
}

func TestCurlFollowsOnlyToProvenHosts(t *testing.T) {
	s := newSite(t)
	s.in.Use(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(rw, r, "https://evil.example/", http.StatusFound)
		case "/plain":
			http.Redirect(rw, r, "http://"+clienttest.Host+"/", http.StatusFound)
		case "/here":
			http.Redirect(rw, r, "/", http.StatusFound)
		default:
			_, _ = io.WriteString(rw, "arrived")
		}
	})
	flags := s.flags() + " --allow-simulated"
	if got := s.Must("curl -L " + url + "/here" + flags); got.Out != "arrived" {
		t.Errorf("%q", got.Out)
	}
	if got := s.Must("curl -i " + url + "/here" + flags); !strings.HasPrefix(got.Out, "HTTP/2.0 302 Found\r\n") {
		t.Errorf("%q", got.Out)
	}
	s.Refused(exit.Refused, "curl -L "+url+"/plain"+flags, "only https")
	s.Refused(exit.Refused, "curl -L "+url+"/away"+flags, "connection-tls")
}

func TestReceiptIsKeptAndChecked(t *testing.T) {
	s := newSite(t)
	signer := receipt.NewSigner(s.in.ReceiptKey, time.Now)
	s.in.Use(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
		receipt.Fields{Workload: policytest.Web, Manifest: 1, Evidence: policytest.Digest("e")}.Set(rw.Header())
		signer.Sign(rw.Header(), http.StatusOK, r)
	})
	s.Must("curl --receipt @receipt.json " + url + "/pay" + s.flags() + " --allow-simulated")
	if got := s.Run("verify " + url + s.flags() + " --save @proof"); got.Code != exit.Partial {
		t.Fatal(got.ErrOut)
	}
	got := s.Must("receipt verify @receipt.json --key @proof/attestation.json")
	if !strings.Contains(got.Out, "GET "+url+"/pay") || !strings.Contains(got.Out, policytest.Web) {
		t.Errorf("%s", got.Out)
	}
	s.Write("changed.json", []byte(strings.Replace(string(s.Read("receipt.json")), policytest.Web, policytest.DB, 1)))
	s.Refused(exit.Refused, "receipt verify @changed.json --key @proof/attestation.json", "receipt-signature")
	s.in.Use(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
		receipt.Fields{Workload: policytest.Web, Manifest: 1, Evidence: policytest.Digest("e")}.Set(rw.Header())
		signer.Sign(rw.Header(), http.StatusOK, r)
		rw.Header().Set(receipt.HeaderWorkload, policytest.DB)
	})
	s.Refused(exit.Refused, "curl --receipt @none.json "+url+s.flags()+" --allow-simulated", "the request was sent, its answer is not used")
	s.in.Use(func(http.ResponseWriter, *http.Request) {})
	s.Refused(exit.Refused, "curl --receipt @none.json "+url+s.flags()+" --allow-simulated", "not signed")
	if _, err := os.Stat(filepath.Join(s.Dir, "none.json")); err == nil {
		t.Error("a receipt was written")
	}
}
