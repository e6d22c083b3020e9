// SPDX-License-Identifier: Apache-2.0

package page_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/ingress/page"
	"github.com/c8s-dev/c8s/test/browser"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
	"github.com/c8s-dev/c8s/test/privileged"
)

// shotsEnv names a folder where the screenshots of the test are kept, for
// looking at them.
const shotsEnv = "C8S_SCREENSHOTS"

// host serves the page at bank.example over TLS, in a namespace that reaches
// nothing else, and starts a browser there.
func host(t *testing.T) (*browser.Browser, func(func(*page.Facts))) {
	t.Helper()
	privileged.Require(t)
	ns := labtest.New(t, lab.Options{Name: "page", Nodes: []lab.NodeSpec{{Name: "node"}}, Outside: []string{"user"}}).Outside("user")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"bank.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	changes := make(chan func(*page.Facts), 1)
	changes <- func(*page.Facts) {}
	p := newPage(t, func(context.Context, string) (*page.Facts, error) {
		change := <-changes
		changes <- change
		return facts(change), nil
	})
	ln, err := ns.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p, TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { server.Close(); <-done })
	return browser.Start(t, ns.NS, browser.Options{Hosts: ln.Addr().String(), Trust: leaf}), func(c func(*page.Facts)) { <-changes; changes <- c }
}

func TestBrowserShowsThePageWithoutComplaint(t *testing.T) {
	b, set := host(t)
	views := map[string]browser.View{
		"light": {Width: 1280, Height: 900}, "dark": {Width: 1280, Height: 900, Dark: true},
		"phone": {Width: 320, Height: 640}, "phone-dark": {Width: 320, Height: 640, Dark: true, Calm: true},
	}
	for _, state := range []string{"fresh", "stale", "none yet", "simulated"} {
		set(states[state].change)
		for name, v := range views {
			t.Run(state+" "+name, func(t *testing.T) {
				p := b.Open("https://bank.example"+page.Path, v)
				keep(t, p, state+" "+name)
				if c := p.Complaints(); len(c) != 0 {
					t.Errorf("the browser complains: %v", c)
				}
				if r := p.Requests(); len(r) != 1 {
					t.Errorf("the page asked for %v, want itself alone", r)
				}
				var got struct {
					Wide, Width int
					Back        string
				}
				p.Eval(`({Wide: document.documentElement.scrollWidth, Width: innerWidth, Back: getComputedStyle(document.body).backgroundColor})`, &got)
				if got.Wide > v.Width || got.Width != v.Width {
					t.Errorf("the page is %d wide in a window of %d", got.Wide, got.Width)
				}
				want := "rgb(244, 246, 249)"
				if v.Dark {
					want = "rgb(16, 21, 28)"
				}
				if got.Back != want {
					t.Errorf("background %s, want %s", got.Back, want)
				}
				p.Close()
			})
		}
	}
}

func TestKeyboardReachesEveryLinkInOrder(t *testing.T) {
	b, _ := host(t)
	p := b.Open("https://bank.example"+page.Path, browser.View{Width: 1280, Height: 900})
	var want []string
	p.Eval(`[...document.querySelectorAll("a")].map(a => a.getAttribute("href"))`, &want)
	if len(want) < 6 || want[0] != "#main" {
		t.Fatalf("links %v, want the one that skips first", want)
	}
	var got []string
	for range want {
		p.Tab()
		var at struct{ Href, Outline string }
		p.Eval(`({Href: document.activeElement.getAttribute("href") ?? document.activeElement.tagName, Outline: getComputedStyle(document.activeElement).outlineStyle})`, &at)
		got = append(got, at.Href)
		if at.Outline == "none" {
			t.Errorf("%s has the focus and nobody sees it", at.Href)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the keyboard reaches\n%v, want\n%v", got, want)
	}
}

// The script only keeps the page from growing old unnoticed; its clock is the
// server's and the time since then.
func TestScriptLetsAgesGrow(t *testing.T) {
	b, _ := host(t)
	p := b.Open("https://bank.example"+page.Path, browser.View{Width: 800, Height: 600})
	var ago, note string
	p.Eval(`new Promise(done => {
		const began = Date.now(); let later = 0;
		Date.now = () => began + 3 * 60000;
		const look = setInterval(() => {
			const e = document.querySelector("[data-ago]");
			if (e.textContent.startsWith("3 minutes") || ++later > 600) { clearInterval(look); done(e.textContent); }
		}, 100);
	})`, &ago)
	if ago != "3 minutes ago" {
		t.Errorf("three minutes later the proof is from %q", ago)
	}
	p.Eval(`document.getElementById("old").textContent`, &note)
	if !strings.Contains(note, "made a while ago") {
		t.Errorf("nothing says that the page is old: %q", note)
	}
}

func keep(t *testing.T, p *browser.Page, name string) {
	t.Helper()
	if dir := os.Getenv(shotsEnv); dir != "" {
		file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".png")
		if err := os.WriteFile(file, p.Screenshot(), 0o600); err != nil {
			t.Fatal(fmt.Errorf("keeping a screenshot: %w", err))
		}
	}
}
