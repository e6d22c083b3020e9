// SPDX-License-Identifier: Apache-2.0

package page_test

import (
	"crypto/sha256"
	"encoding/base64"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/c8s-dev/c8s/ingress/page"
)

func attr(n *html.Node, key string) (string, bool) {
	i := slices.IndexFunc(n.Attr, func(a html.Attribute) bool { return a.Key == key })
	if i < 0 {
		return "", false
	}
	return n.Attr[i].Val, true
}

// voidElements have no end tag (HTML, section 13.1.2).
var voidElements = []string{"meta", "link", "br", "wbr"}

// A parser of HTML forgives everything; the tokens show what it forgave.
func TestEveryElementIsClosedInOrder(t *testing.T) {
	for name, tt := range states {
		t.Run(name, func(t *testing.T) {
			z := html.NewTokenizer(get(t, facts(tt.change), http.MethodGet, page.Path).Body)
			var open []string
			for {
				switch kind, token := z.Next(), z.Token(); kind {
				case html.ErrorToken:
					if len(open) != 0 {
						t.Errorf("never closed: %v", open)
					}
					return
				case html.StartTagToken:
					if !slices.Contains(voidElements, token.Data) {
						open = append(open, token.Data)
					}
				case html.EndTagToken:
					if len(open) == 0 || open[len(open)-1] != token.Data {
						t.Fatalf("</%s> closes %v", token.Data, open)
					}
					open = open[:len(open)-1]
				}
			}
		})
	}
}

func TestStructureIsForEverybody(t *testing.T) {
	for name, tt := range states {
		t.Run(name, func(t *testing.T) {
			root, _ := tree(t, facts(tt.change))
			count, ids, level := map[string]int{}, map[string]bool{}, 0
			for n := range root.Descendants() {
				if n.Type != html.ElementNode {
					continue
				}
				count[n.Data]++
				if id, ok := attr(n, "id"); ok {
					if ids[id] {
						t.Errorf("id %q twice", id)
					}
					ids[id] = true
				}
				if len(n.Data) == 2 && n.Data[0] == 'h' && n.Data[1] >= '1' && n.Data[1] <= '6' {
					l := int(n.Data[1] - '0')
					if l > level+1 {
						t.Errorf("<%s> after a heading of level %d", n.Data, level)
					}
					level = l
				}
				checkElement(t, n)
			}
			for _, one := range []string{"main", "header", "footer", "h1", "title"} {
				if count[one] != 1 {
					t.Errorf("%d of <%s>", count[one], one)
				}
			}
			for n := range root.Descendants() {
				by, _ := attr(n, "aria-labelledby")
				href, _ := attr(n, "href")
				if target, local := strings.CutPrefix(href, "#"); local {
					by = target
				}
				if by != "" && !ids[by] {
					t.Errorf("<%s> names #%s, which is not there", n.Data, by)
				}
			}
		})
	}
}

func checkElement(t *testing.T, n *html.Node) {
	t.Helper()
	has := func(key string) bool { _, ok := attr(n, key); return ok }
	switch n.Data {
	case "html":
		if lang, _ := attr(n, "lang"); lang != "en" {
			t.Errorf("lang %q", lang)
		}
	case "th":
		if !has("scope") {
			t.Error("a header cell says not what it heads")
		}
	case "section":
		if !has("aria-labelledby") {
			t.Error("a section without a name")
		}
	case "svg":
		if !has("aria-hidden") {
			t.Error("an ornament is read aloud")
		}
	case "time":
		if !has("datetime") {
			t.Error("a time without datetime")
		}
	case "img", "iframe", "object", "embed", "form", "base":
		t.Errorf("there is a <%s>", n.Data)
	case "a", "link":
		href, _ := attr(n, "href")
		if href == "" || strings.HasPrefix(href, "//") || strings.Contains(href, "://") && !strings.HasPrefix(href, "data:") {
			t.Errorf("<%s href=%q> leads elsewhere", n.Data, href)
		}
	}
	if has("style") || has("src") {
		t.Errorf("<%s> has a style or a source of its own", n.Data)
	}
}

// What is sent must be what the policy's hashes are of, or browsers drop it.
func TestPolicyAdmitsTheBytesThatAreSent(t *testing.T) {
	w := get(t, facts(), http.MethodGet, page.Path)
	policy := w.Header().Get("Content-Security-Policy")
	body := w.Body.String()
	for _, element := range []string{"style", "script"} {
		_, rest, _ := strings.Cut(body, "<"+element+">")
		content, _, found := strings.Cut(rest, "</"+element+">")
		sum := sha256.Sum256([]byte(content))
		if want := element + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !found || !strings.Contains(policy, want) {
			t.Errorf("policy %q has no %q", policy, want)
		}
	}
	for _, want := range []string{"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q has no %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("policy %q admits more", policy)
	}
}

// The pairs of colours that the page puts text or meaning on, with the least
// contrast of WCAG 2.2: 4.5 for text (1.4.3), 3 for figures and edges (1.4.11).
var pairs = []struct {
	front, back string
	least       float64
}{
	{"text", "page", 4.5},
	{"text", "card", 4.5},
	{"text", "code", 4.5},
	{"quiet", "card", 4.5},
	{"quiet", "page", 4.5},
	{"link", "card", 4.5},
	{"link", "page", 4.5},
	{"good", "good-back", 4.5},
	{"warn", "warn-back", 4.5},
	{"bad", "bad-back", 4.5},
	{"text", "good-back", 4.5},
	{"text", "warn-back", 4.5},
	{"text", "bad-back", 4.5},
	{"link", "good-back", 4.5},
	{"link", "warn-back", 4.5},
	{"link", "bad-back", 4.5},
	{"good", "page", 3},
	{"warn", "page", 3},
	{"bad", "page", 3},
}

func TestColoursHaveContrastInLightAndDark(t *testing.T) {
	body := get(t, facts(), http.MethodGet, page.Path).Body.String()
	blocks := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(body, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d sets of colours, want light and dark", len(blocks))
	}
	for i, scheme := range []string{"light", "dark"} {
		colours := map[string]string{}
		for _, c := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(blocks[i][1], -1) {
			colours[c[1]] = c[2]
		}
		for _, p := range pairs {
			front, back := colours[p.front], colours[p.back]
			if front == "" || back == "" {
				t.Fatalf("%s has no colour %s or %s", scheme, p.front, p.back)
			}
			if got := contrast(t, front, back); got < p.least {
				t.Errorf("%s: %s on %s has a contrast of %.2f, want %.1f", scheme, p.front, p.back, got, p.least)
			}
		}
	}
	if used := regexp.MustCompile(`#[0-9a-f]{3,8}\b`).FindAllString(regexp.MustCompile(`(?s):root \{.*?\}`).ReplaceAllString(style(body), ""), -1); len(used) != 0 {
		t.Errorf("colours outside of the two sets: %v", used)
	}
}

func style(body string) string {
	_, rest, _ := strings.Cut(body, "<style>")
	css, _, _ := strings.Cut(rest, "</style>")
	return css
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	la, lb := luminance(t, a), luminance(t, b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	channel := func(shift uint) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*channel(16) + 0.7152*channel(8) + 0.0722*channel(0)
}
