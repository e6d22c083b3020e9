// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	maxConf       = 1 << 20
	extConflist   = ".conflist"
	keyPlugins    = "plugins"
	keyCNIVersion = "cniVersion"
	keyName       = "name"
	keyType       = "type"
	keyGate       = "gate"
)

// isConf says whether containerd reads a file as a network configuration.
func isConf(name string) bool {
	return slices.Contains([]string{".conf", extConflist, ".json"}, path.Ext(name))
}

// member is one of a JSON object; a slice of them keeps the writer's order.
type member struct {
	key   string
	value json.RawMessage
}

type object []member

func parseObject(data []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	if t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var o object
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{key: key.(string)} // a decoder gives nothing else here
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		if o.get(m.key) != nil {
			return nil, fmt.Errorf("%q stands there twice", m.key)
		}
		o = append(o, m)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return o, nil
}

func (o object) get(key string) json.RawMessage {
	for _, m := range o {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

// text returns a member that is a string, or "".
func (o object) text(key string) string {
	var s string
	if v := o.get(key); v == nil || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

func (o object) with(key string, value json.RawMessage) object {
	out := slices.Clone(o)
	if i := slices.IndexFunc(out, func(m member) bool { return m.key == key }); i >= 0 {
		out[i].value = value
		return out
	}
	return append(out, member{key, value})
}

func (o object) format() ([]byte, error) {
	var b, out bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	if err := json.Indent(&out, b.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// conflist is a network configuration, split where c8s-cni goes in.
type conflist struct {
	list    object
	plugins []json.RawMessage
	ours    int  // how many of the plugins are c8s-cni
	last    bool // and whether the last one is
	gate    string
}

// parseConflist reads a file of either form: a single plugin's configuration
// becomes a list of one, as libcni makes of it.
func parseConflist(name string, data []byte) (*conflist, error) {
	if len(data) > maxConf {
		return nil, fmt.Errorf("larger than %d bytes", maxConf)
	}
	o, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	var all []json.RawMessage
	if path.Ext(name) == extConflist {
		if err := json.Unmarshal(o.get(keyPlugins), &all); err != nil {
			return nil, fmt.Errorf("%s is no list of plugins: %w", keyPlugins, err)
		}
	} else {
		if o.text(keyType) == "" {
			return nil, errors.New("it has no plugin type")
		}
		all = []json.RawMessage{data}
		single := o
		o = nil
		for _, key := range []string{keyCNIVersion, keyName} {
			if v := single.get(key); v != nil {
				o = append(o, member{key, v})
			}
		}
	}
	c := &conflist{list: o}
	for _, raw := range all {
		p, err := parseObject(raw)
		if err != nil {
			return nil, fmt.Errorf("a plugin in it: %w", err)
		}
		c.last = p.text(keyType) == cniProgName
		if c.last {
			c.ours++
			c.gate = p.text(keyGate)
			continue
		}
		c.plugins = append(c.plugins, raw)
	}
	if len(c.plugins) == 0 {
		return nil, errors.New("it names no plugin that makes a network")
	}
	if o.text(keyName) == "" {
		return nil, errors.New("it has no name")
	}
	return c, nil
}

// chained says whether c8s-cni has the last word, once, and asks at this gate.
func (c *conflist) chained(gate string) bool { return c.ours == 1 && c.last && c.gate == gate }

// chain writes the list with c8s-cni as its last plugin.
func (c *conflist) chain(gate string) ([]byte, error) {
	if v := c.list.text(keyCNIVersion); !passesResults(v) {
		return nil, fmt.Errorf("its %s is %q; plugins pass results to the next one from 0.3.0 on", keyCNIVersion, v)
	}
	ours, err := json.Marshal(map[string]string{keyType: cniProgName, keyGate: gate})
	if err != nil {
		return nil, err
	}
	return c.format(append(slices.Clone(c.plugins), ours))
}

// unchain writes the list without c8s-cni.
func (c *conflist) unchain() ([]byte, error) { return c.format(c.plugins) }

func (c *conflist) format(plugins []json.RawMessage) ([]byte, error) {
	all, err := json.Marshal(plugins)
	if err != nil {
		return nil, err
	}
	return c.list.with(keyPlugins, all).format()
}

// passesResults says whether a version of the CNI specification has prevResult.
func passesResults(version string) bool {
	parts := strings.Split(version, ".")
	if len(parts) != 3 {
		return false
	}
	var n [3]int
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil || v < 0 {
			return false
		}
		n[i] = v
	}
	return n[0] > 0 || n[1] >= 3
}
