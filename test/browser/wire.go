// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// message is one of the DevTools protocol; a zero byte ends each in a pipe.
type message struct {
	ID        int             `json:"id,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// text is the string at a path of the parameters, empty without one.
func (m message) text(path ...string) string {
	raw := m.Params
	for _, name := range path {
		var fields map[string]json.RawMessage
		if json.Unmarshal(raw, &fields) != nil {
			return ""
		}
		raw = fields[name]
	}
	var s string
	_ = json.Unmarshal(raw, &s) // another type is no text
	return s
}

// wire is the pair of pipes to the browser.
type wire struct {
	out   *os.File
	in    *bufio.Reader
	ended chan struct{}

	mu       sync.Mutex
	last     int
	answers  map[int]chan message
	sessions map[string]func(message)
}

var errEnded = errors.New("the browser ended")

func (w *wire) follow(session string, fn func(message)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[session] = fn
}

func (w *wire) ask(session, method string, params, out any) error {
	raw, err := json.Marshal(params)
	if err != nil {
		return err
	}
	if string(raw) == "null" {
		raw = nil
	}
	w.mu.Lock()
	w.last++
	id, answer := w.last, make(chan message, 1)
	w.answers[id] = answer
	body, err := json.Marshal(message{ID: id, SessionID: session, Method: method, Params: raw})
	if err == nil {
		_, err = w.out.Write(append(body, 0))
	}
	w.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return errors.New(m.Error.Message)
		}
		if out == nil {
			return nil
		}
		return json.Unmarshal(m.Result, out)
	case <-w.ended:
		return errEnded
	case <-time.After(patience):
		return fmt.Errorf("no answer after %s", patience)
	}
}

// read hands out what the browser says, until it ends.
func (w *wire) read() {
	defer close(w.ended)
	for {
		raw, err := w.in.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(raw[:len(raw)-1], &m) != nil {
			return
		}
		w.mu.Lock()
		answer, event := w.answers[m.ID], w.sessions[m.SessionID]
		delete(w.answers, m.ID)
		w.mu.Unlock()
		switch {
		case m.ID != 0 && answer != nil:
			answer <- m
		case m.ID == 0 && event != nil:
			event(m)
		}
	}
}

// record is what happened on a page.
type record struct {
	mu                sync.Mutex
	asked, complained []string
}

func (r *record) request(url string) { r.note(&r.asked, url) }

func (r *record) complaint(text string) { r.note(&r.complained, text) }

func (r *record) note(list *[]string, s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*list = append(*list, s)
}

func (r *record) requests() []string { return r.copyOf(&r.asked) }

func (r *record) complaints() []string { return r.copyOf(&r.complained) }

func (r *record) copyOf(list *[]string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(*list)
}

// tail keeps the last of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 8 << 10

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	l.buf = l.buf[max(0, len(l.buf)-tailSize):]
	return len(p), nil
}

func (l *tail) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}
