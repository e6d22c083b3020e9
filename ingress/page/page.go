// SPDX-License-Identifier: Apache-2.0

// Package page serves the ingress's status page: what is attested, by whom,
// since when, and how an end user checks it without believing the page.
//
// Invariant: the page claims nothing. It repeats what the ingress knows, says in
// words that a page proves nothing, and names the documents and the command
// that do. It loads nothing from anywhere: styles, figures and the script are
// inside, and the content security policy admits these bytes alone.
package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Where the page and its facts are.
const (
	Path     = "/.well-known/c8s/status"
	JSONPath = "/.well-known/c8s/status.json"
)

//go:embed page.html
var source string

// Config is what the page is made of.
type Config struct {
	// Facts answers for the host, a DNS name, that the request names. Its
	// context is the request's.
	Facts func(ctx context.Context, host string) (*Facts, error)
	Log   *slog.Logger
}

// Page serves Path and JSONPath.
type Page struct {
	cfg      Config
	template *template.Template
	policy   string // Content-Security-Policy
}

// New prepares the page.
func New(cfg Config) (*Page, error) {
	if cfg.Facts == nil || cfg.Log == nil {
		return nil, errors.New("preparing the status page: the configuration lacks a part")
	}
	t, err := template.New("page").Funcs(template.FuncMap{
		"when": when, "ago": ago, "lasts": lasts, "groups": groups, "tee": teeName, "ports": ports,
	}).Parse(source)
	if err != nil {
		return nil, fmt.Errorf("preparing the status page: %w", err)
	}
	policy, err := securityPolicy(source)
	if err != nil {
		return nil, fmt.Errorf("preparing the status page: %w", err)
	}
	return &Page{cfg, t, policy}, nil
}

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	write := p.writeHTML
	switch r.URL.Path {
	case Path:
	case JSONPath:
		write = p.writeJSON
	default:
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this is for reading", http.StatusMethodNotAllowed)
		return
	}
	facts, err := p.cfg.Facts(r.Context(), hostOf(r))
	if err != nil {
		p.cfg.Log.Warn("making the status page", "err", err)
		http.Error(w, "the ingress cannot say what state it is in; try again", http.StatusServiceUnavailable)
		return
	}
	facts.settle()
	write(w, r, facts)
}

func (p *Page) writeJSON(w http.ResponseWriter, r *http.Request, f *Facts) {
	body, err := json.MarshalIndent(struct {
		Schema string `json:"schema"`
		State  State  `json:"state"`
		*Facts
	}{Schema, f.State(), f}, "", "  ")
	if err != nil {
		p.cfg.Log.Error("encoding the status", "err", err)
		http.Error(w, "the ingress cannot say what state it is in", http.StatusInternalServerError)
		return
	}
	p.write(w, r, "application/json", append(body, '\n'))
}

func (p *Page) writeHTML(w http.ResponseWriter, r *http.Request, f *Facts) {
	var body bytes.Buffer
	if err := p.template.Execute(&body, struct {
		*Facts
		JSON, Page string
	}{f, JSONPath, Path}); err != nil {
		p.cfg.Log.Error("rendering the status page", "err", err)
		http.Error(w, "the ingress cannot show its status; see status.json", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Security-Policy", p.policy)
	p.write(w, r, "text/html; charset=utf-8", body.Bytes())
}

func (p *Page) write(w http.ResponseWriter, r *http.Request, kind string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store") // it is about now, and about this connection
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(body) // whoever left needs no page
}

// hostOf is the name the visitor asked for, without a port.
func hostOf(r *http.Request) string {
	host := r.Host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

var inline = regexp.MustCompile(`(?s)<(style|script)>(.*?)</(?:style|script)>`)

// securityPolicy admits the page's own style and script by their hashes (CSP
// level 3, section 2.3.1), and nothing else. Both are without actions of the
// template: what is hashed is what is sent.
func securityPolicy(html string) (string, error) {
	hashes := map[string][]string{}
	for _, part := range inline.FindAllStringSubmatch(html, -1) {
		if strings.Contains(part[2], "{{") {
			return "", fmt.Errorf("the page's %s is not constant", part[1])
		}
		sum := sha256.Sum256([]byte(part[2]))
		hashes[part[1]] = append(hashes[part[1]], "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	if len(hashes["style"]) != 1 || len(hashes["script"]) != 1 {
		return "", errors.New("the page has not one style and one script")
	}
	return "default-src 'none'; style-src " + hashes["style"][0] + "; script-src " + hashes["script"][0] +
		"; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", nil
}
