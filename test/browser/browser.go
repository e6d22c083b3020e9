// SPDX-License-Identifier: Apache-2.0

// Package browser opens pages in headless Chromium, inside a lab's namespace.
//
// Invariant: what the browser can reach is what the namespace can, so a page
// that loads anything from elsewhere is found out; and a test that cannot run
// the browser fails where tests are required.
package browser

import (
	"bufio"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/privileged"
)

// program is Debian's name for it; hack/deps installs the package.
const program = "chromium"

// patience bounds one question to the browser, on a busy machine.
const patience = time.Minute

// Options say how the browser is started.
type Options struct {
	// Hosts leads every name to this address and port; DNS is not asked.
	Hosts string
	// Trust is the certificate that the browser accepts although no authority
	// it knows issued it, by its key alone. Nil: none.
	Trust *x509.Certificate
}

// Browser is a running Chromium. It ends with the test.
type Browser struct {
	t    testing.TB
	wire *wire
}

// Start starts the browser on a host of the lab.
func Start(t testing.TB, on *lab.NS, o Options) *Browser {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		privileged.Missing(t, os.Getenv(privileged.RequireEnv), "needs Chromium: hack/deps test")
	}
	args := []string{
		"--headless", "--remote-debugging-pipe", "--user-data-dir=" + t.TempDir(),
		// Root in a namespace without anything else: there is nothing to be
		// shielded from, and Chromium refuses to start as root otherwise.
		"--no-sandbox",
		"--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--hide-scrollbars",
		"--host-resolver-rules=MAP * " + o.Hosts,
	}
	if o.Trust != nil {
		key := sha256.Sum256(o.Trust.RawSubjectPublicKeyInfo)
		args = append(args, "--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(key[:]))
	}
	cmd := on.Command(t.Context(), program, append(args, "about:blank")...)
	toBrowser, ours := pipe(t)
	theirs, fromBrowser := pipe(t)
	cmd.ExtraFiles = []*os.File{toBrowser, fromBrowser} // descriptors 3 and 4
	var log tail
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	toBrowser.Close()
	fromBrowser.Close()
	w := &wire{out: ours, in: bufio.NewReaderSize(theirs, 1<<20), answers: map[int]chan message{}, sessions: map[string]func(message){}, ended: make(chan struct{})}
	go w.read()
	t.Cleanup(func() {
		ours.Close() // the browser ends when its pipe does
		_ = cmd.Cancel()
		_ = cmd.Wait()
		theirs.Close()
		if t.Failed() {
			t.Logf("the browser's last words:\n%s", log.text())
		}
	})
	return &Browser{t: t, wire: w}
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// View is how a page is looked at.
type View struct {
	Width, Height int
	Dark          bool
	Calm          bool // prefers-reduced-motion
}

// Page is one tab.
type Page struct {
	b       *Browser
	target  string
	session string
	loaded  chan struct{}
	seen    *record
}

// Open loads a URL and returns when it has loaded with all it asks for.
func (b *Browser) Open(url string, v View) *Page {
	b.t.Helper()
	var target struct{ TargetID string }
	b.ask("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.ask("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p := &Page{b: b, target: target.TargetID, session: attached.SessionID, loaded: make(chan struct{}, 1), seen: &record{}}
	b.wire.follow(p.session, p.event)
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.do(domain+".enable", nil, nil)
	}
	p.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": v.Width, "height": v.Height, "deviceScaleFactor": 1, "mobile": v.Width < 600}, nil)
	p.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{
		{"name": "prefers-color-scheme", "value": choose(v.Dark, "dark", "light")},
		{"name": "prefers-reduced-motion", "value": choose(v.Calm, "reduce", "no-preference")},
	}}, nil)
	p.Load(url)
	return p
}

func choose(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// Load goes to another URL in the same tab.
func (p *Page) Load(url string) {
	p.b.t.Helper()
	var navigated struct{ ErrorText string }
	p.do("Page.navigate", map[string]any{"url": url}, &navigated)
	if navigated.ErrorText != "" {
		p.b.t.Fatalf("opening %s: %s", url, navigated.ErrorText)
	}
	select {
	case <-p.loaded:
	case <-p.b.wire.ended:
		p.b.t.Fatalf("opening %s: the browser ended", url)
	case <-time.After(patience):
		p.b.t.Fatalf("opening %s: not loaded after %s; requests %v, complaints %v", url, patience, p.Requests(), p.Complaints())
	}
}

// Close closes the tab.
func (p *Page) Close() {
	p.b.t.Helper()
	p.b.ask("", "Target.closeTarget", map[string]any{"targetId": p.target}, nil)
}

// Eval returns the value of a JavaScript expression, decoded into out.
func (p *Page) Eval(expression string, out any) {
	p.b.t.Helper()
	var answer struct {
		Result struct {
			Value json.RawMessage
		}
		ExceptionDetails *struct{ Text string }
	}
	p.do("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer)
	if answer.ExceptionDetails != nil {
		p.b.t.Fatalf("evaluating %s: %s", expression, answer.ExceptionDetails.Text)
	}
	if err := json.Unmarshal(answer.Result.Value, out); err != nil {
		p.b.t.Fatalf("reading %s, the value of %s: %v", answer.Result.Value, expression, err)
	}
}

// Tab presses the tabulator key.
func (p *Page) Tab() {
	p.b.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		p.do("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}, nil)
	}
}

// Screenshot is the whole page as PNG.
func (p *Page) Screenshot() []byte {
	p.b.t.Helper()
	var shot struct{ Data []byte }
	p.do("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	return shot.Data
}

// Requests are the URLs that the page asked for, in their order, data: apart.
func (p *Page) Requests() []string { return p.seen.requests() }

// Complaints is what the console says: errors, exceptions, and violations of
// the content security policy.
func (p *Page) Complaints() []string { return p.seen.complaints() }

func (p *Page) do(method string, params map[string]any, out any) {
	p.b.t.Helper()
	p.b.ask(p.session, method, params, out)
}

func (b *Browser) ask(session, method string, params map[string]any, out any) {
	b.t.Helper()
	if err := b.wire.ask(session, method, params, out); err != nil {
		b.t.Fatalf("asking the browser for %s: %v", method, err)
	}
}

// event is called for every event of the tab.
func (p *Page) event(m message) {
	switch m.Method {
	case "Page.loadEventFired":
		select {
		case p.loaded <- struct{}{}:
		default:
		}
	case "Network.requestWillBeSent":
		if url := m.text("request", "url"); !strings.HasPrefix(url, "data:") {
			p.seen.request(url)
		}
	case "Runtime.exceptionThrown":
		p.seen.complaint("exception: " + string(m.Params))
	case "Log.entryAdded":
		if level := m.text("entry", "level"); level == "error" || level == "warning" {
			p.seen.complaint(fmt.Sprintf("%s: %s (%s)", level, m.text("entry", "text"), m.text("entry", "url")))
		}
	case "Runtime.consoleAPICalled":
		if kind := m.text("type"); kind == "error" || kind == "warning" {
			p.seen.complaint("console: " + string(m.Params))
		}
	}
}
