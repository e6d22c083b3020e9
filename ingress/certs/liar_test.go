// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// liar is a CA that asks for no challenge and says what a test wants: it looks
// at nothing that is signed.
type liar struct {
	url   string
	roots []byte // PEM: for connections
	key   *ecdsa.PrivateKey
	root  *x509.Certificate

	mu       sync.Mutex
	requests map[string]int
	last     map[string]*x509.CertificateRequest // by name
	own      map[string]http.HandlerFunc         // by kind
	template func(*x509.Certificate)             // edits what is issued
	foreign  bool                                // issue for another key
	chain    func(der []byte) []byte             // what is sent, PEM
}

func newLiar(t *testing.T) *liar {
	t.Helper()
	l := &liar{requests: map[string]int{}, last: map[string]*x509.CertificateRequest{}, own: map[string]http.HandlerFunc{}}
	l.key = mustKey(t)
	der := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "liar"}, NotBefore: time.Now().Add(-400 * 24 * time.Hour),
		NotAfter: time.Now().Add(4000 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, &l.key.PublicKey, l.key)
	l.root, _ = x509.ParseCertificate(der)
	server := httptest.NewTLSServer(l)
	t.Cleanup(server.Close)
	l.url = server.URL
	l.roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return l
}

func mustKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign makes a certificate; no parent: signed by itself.
func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (l *liar) acme() *ACME { return &ACME{Directory: l.url + "/directory", Roots: l.roots} }

// on has f answer requests of a kind; nil answers as usual.
func (l *liar) on(kind string, f http.HandlerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own[kind] = f
}

func (l *liar) counted(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests[kind]
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	l.mu.Lock()
	l.requests[kind]++
	own := l.own[kind]
	l.mu.Unlock()
	w.Header().Set("Replay-Nonce", rand.Text())
	if own != nil {
		own(w, r)
		return
	}
	l.honest(w, r, kind, name)
}

// honest answers as RFC 8555 wants. The order's name is in its URL.
func (l *liar) honest(w http.ResponseWriter, r *http.Request, kind, name string) {
	at := func(kind string) string { return l.url + "/" + kind + "/" + name }
	order := func(status string) map[string]any {
		return map[string]any{
			"status": status, "identifiers": []map[string]string{{"type": "dns", "value": name}},
			"authorizations": []string{at("authorization")}, "finalize": at("finalize"), "certificate": at("certificate"),
		}
	}
	switch kind {
	case "directory":
		answerJSON(w, http.StatusOK, map[string]any{
			"newNonce": l.url + "/newNonce", "newAccount": l.url + "/newAccount", "newOrder": l.url + "/newOrder",
			"revokeCert": l.url + "/none", "keyChange": l.url + "/none",
		})
	case "newNonce":
	case "newAccount":
		w.Header().Set("Location", l.url+"/account/1")
		answerJSON(w, http.StatusCreated, map[string]string{"status": "valid"})
	case "newOrder":
		var asked struct {
			Identifiers []struct{ Value string }
		}
		payload(r, &asked)
		name = asked.Identifiers[0].Value
		w.Header().Set("Location", at("order"))
		answerJSON(w, http.StatusCreated, order("ready"))
	case "order":
		answerJSON(w, http.StatusOK, order("ready"))
	case "authorization":
		answerJSON(w, http.StatusOK, map[string]any{"status": "valid", "identifier": map[string]string{"type": "dns", "value": name}})
	case "finalize":
		var asked struct{ CSR string }
		payload(r, &asked)
		der, _ := base64.RawURLEncoding.DecodeString(asked.CSR)
		l.mu.Lock()
		l.last[name], _ = x509.ParseCertificateRequest(der)
		l.mu.Unlock()
		answerJSON(w, http.StatusOK, order("valid"))
	case "certificate":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(l.issue(name))
	default:
		http.NotFound(w, r)
	}
}

func (l *liar) issue(name string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	request := l.last[name]
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(l.requests["certificate"]) + 1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		DNSNames: request.DNSNames, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if l.template != nil {
		l.template(template)
	}
	public := request.PublicKey
	if l.foreign {
		public = &l.key.PublicKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, l.root, public, l.key)
	if err != nil {
		return []byte(err.Error())
	}
	if l.chain != nil {
		return l.chain(der)
	}
	return pemOf(der, l.root.Raw)
}

// shortLived has certificates live for d from the time of the world.
func shortLived(w *world, d time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = w.clock.now(), w.clock.now().Add(d) }
}

func pemOf(ders ...[]byte) (all []byte) {
	for _, der := range ders {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return all
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// payload reads what a request says, without looking at its signature.
func payload(r *http.Request, v any) {
	var jws struct{ Payload string }
	raw, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(raw, &jws)
	body, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	_ = json.Unmarshal(body, v)
}

// A CA may do anything: what was served is served still, no lie is, the status
// says what is wrong, and the try ends.
func TestLyingCAChangesNothing(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("x", 3*maxAnswer)
	for name, tt := range map[string]struct {
		lie  func(l *liar)
		code string
		most int // requests that this may take
	}{
		"certificate for another key":  {func(l *liar) { l.foreign = true }, CodeForeignKey, 10},
		"certificate for another name": {func(l *liar) { l.template = func(c *x509.Certificate) { c.DNSNames = []string{"evil.example"} } }, CodeNames, 10},
		"certificate for one name more": {func(l *liar) {
			l.template = func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "evil.example") }
		}, CodeNames, 10},
		"certificate for a name in CN": {func(l *liar) {
			l.template = func(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames = c.DNSNames[0], nil }
		}, CodeNames, 10},
		"expired certificate": {func(l *liar) { l.template = func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) } }, CodeDates, 10},
		"certificate of next year": {func(l *liar) {
			l.template = func(c *x509.Certificate) { c.NotBefore = time.Now().Add(365 * 24 * time.Hour) }
		}, CodeDates, 10},
		"CA certificate": {func(l *liar) { l.template = func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true } }, CodeUsage, 10},
		"client certificate": {func(l *liar) {
			l.template = func(c *x509.Certificate) { c.ExtKeyUsage[0] = x509.ExtKeyUsageClientAuth }
		}, CodeUsage, 10},
		"chain in the wrong order":      {func(l *liar) { l.chain = func(der []byte) []byte { return pemOf(l.root.Raw, der) } }, CodeForeignKey, 10},
		"chain with a stranger":         {func(l *liar) { l.chain = func(der []byte) []byte { return pemOf(der, der) } }, CodeChain, 10},
		"garbage for a certificate":     {func(l *liar) { l.chain = func([]byte) []byte { return pemOf([]byte("garbage")) } }, CodeUnreadable, 10},
		"no PEM":                        {func(l *liar) { l.chain = func([]byte) []byte { return []byte("garbage") } }, CodeProtocol, 10},
		"no certificate":                {func(l *liar) { l.chain = func([]byte) []byte { return nil } }, CodeProtocol, 10},
		"a huge certificate":            {func(l *liar) { l.chain = func([]byte) []byte { return []byte(huge) } }, CodeProtocol, 10},
		"a huge directory":              {func(l *liar) { l.on("directory", say(`{"newNonce":"`+huge)) }, CodeProtocol, 2},
		"a huge order":                  {func(l *liar) { l.on("newOrder", sayStatus(http.StatusCreated, `{"status":"`+huge)) }, CodeProtocol, 6},
		"a huge refusal":                {func(l *liar) { l.on("newOrder", sayStatus(http.StatusForbidden, huge)) }, CodeProtocol, 6},
		"garbage for a directory":       {func(l *liar) { l.on("directory", say("<html>")) }, CodeProtocol, 2},
		"an empty directory":            {func(l *liar) { l.on("directory", say("{}")) }, CodeProtocol, 2},
		"redirects without end":         {func(l *liar) { l.on("directory", redirect(l, "/directory")) }, CodeProtocol, 2},
		"an order that leads elsewhere": {func(l *liar) { l.on("newOrder", redirect(l, "/newOrder")) }, CodeProtocol, 6},
		"resources without TLS": {func(l *liar) {
			l.on("directory", say(`{"newNonce":"http://127.0.0.1:1/","newOrder":"http://127.0.0.1:1/","newAccount":"http://127.0.0.1:1/"}`))
		}, CodeProtocol, 2},
		"every nonce is bad":              {func(l *liar) { l.on("newOrder", refuse(http.StatusBadRequest, "badNonce", "")) }, CodeProtocol, 16},
		"no nonces":                       {func(l *liar) { l.on("newNonce", noNonce); l.on("directory", l.withoutNonce("directory")) }, CodeProtocol, 3},
		"internal errors":                 {func(l *liar) { l.on("newOrder", refuse(http.StatusInternalServerError, "serverInternal", "")) }, CodeUnreachable, 16},
		"internal errors, come back soon": {func(l *liar) { l.on("newOrder", refuse(http.StatusServiceUnavailable, "x", "-3600")) }, CodeUnreachable, 16},
		"authorization for another name": {func(l *liar) {
			l.on("authorization", say(`{"status":"valid","identifier":{"type":"dns","value":"evil.example"}}`))
		}, CodeProtocol, 10},
		"challenge with a strange token": {func(l *liar) { l.on("authorization", say(pendingWith("http-01", "../../etc"))) }, CodeProtocol, 10},
		"challenge of another kind":      {func(l *liar) { l.on("authorization", say(pendingWith("dns-01", "token"))) }, CodeNoChallenge, 10},
		"a thousand authorizations":      {func(l *liar) { l.on("newOrder", l.manyAuthorizations) }, CodeProtocol, 6},
		"deactivated account":            {func(l *liar) { l.on("newOrder", refuse(http.StatusForbidden, "unauthorized", "")) }, CodeAccount, 6},
		"rate limit":                     {func(l *liar) { l.on("newOrder", refuse(http.StatusTooManyRequests, "rateLimited", "7200")) }, CodeRateLimit, 6},
		"CAA":                            {func(l *liar) { l.on("newOrder", refuse(http.StatusForbidden, "caa", "")) }, CodeCAA, 6},
		"name without DNS":               {func(l *liar) { l.on("newOrder", refuse(http.StatusBadRequest, "dns", "")) }, CodeDNS, 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLiar(t)
			w := newWorld(t, "bank.example")
			w.cfg.ACME = l.acme()
			s := w.open()
			s.step(t.Context())
			served := stateOf(t, s, "bank.example")
			if served.State != StateValid {
				t.Fatalf("%+v", served)
			}
			w.clock.move(61 * 24 * time.Hour)
			l.mu.Lock()
			l.requests = map[string]int{}
			l.mu.Unlock()
			tt.lie(l)
			s.step(t.Context())
			if r := wantProblem(t, s, "bank.example", tt.code); r.Remedy == "" && tt.code != CodeUnreadable || len(r.Error()) > 2000 {
				t.Errorf("%d bytes: %v", len(r.Error()), r)
			}
			if now := stateOf(t, s, "bank.example"); now.Serial != served.Serial || now.State != StateValid {
				t.Errorf("served is %+v", now)
			}
			if chain, err := w.handshake("bank.example"); err != nil || serial(chain[0]) != served.Serial {
				t.Errorf("a client sees %v", err)
			}
			total := 0
			l.mu.Lock()
			for _, n := range l.requests {
				total += n
			}
			l.mu.Unlock()
			if total > tt.most {
				t.Errorf("%d requests, at most %d", total, tt.most)
			}
			s.step(t.Context()) // it is not time yet
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, n := range l.requests {
				total -= n
			}
			if total != 0 {
				t.Errorf("%d requests without waiting", -total)
			}
		})
	}
}

func say(text string) http.HandlerFunc { return sayStatus(http.StatusOK, text) }

func sayStatus(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://127.0.0.1:1/order")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

func redirect(l *liar, path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, l.url+path+"?"+rand.Text(), http.StatusTemporaryRedirect)
	}
}

func refuse(status int, kind, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		problem(w, status, kind, "because")
	}
}

func noNonce(w http.ResponseWriter, _ *http.Request) { w.Header().Del("Replay-Nonce") }

func (l *liar) withoutNonce(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Del("Replay-Nonce")
		l.honest(w, r, kind, "")
	}
}

func pendingWith(way, token string) string {
	return fmt.Sprintf(`{"status":"pending","identifier":{"type":"dns","value":"bank.example"},"challenges":[{"type":%q,"url":"https://127.0.0.1:1/","token":%q}]}`, way, token)
}

func (l *liar) manyAuthorizations(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", l.url+"/order/bank.example")
	urls := make([]string, 1000)
	for i := range urls {
		urls[i] = fmt.Sprintf("%s/authorization/%d", l.url, i)
	}
	answerJSON(w, http.StatusCreated, map[string]any{"status": "pending", "authorizations": urls})
}
