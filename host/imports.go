// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

const keyImports = "imports"

// addImport makes containerd's main configuration import a pattern, last, by
// inserting text: every byte that was there stays. What comes out is parsed
// again, and must be what went in plus the import.
func addImport(data []byte, file, pattern string) ([]byte, error) {
	c, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(c.Imports, func(imp string) bool { return imp == pattern || path.Join(path.Dir(file), imp) == pattern }) {
		return data, nil
	}
	at, insert, err := importEdit(data, pattern)
	if err != nil {
		return nil, err
	}
	out := slices.Concat(data[:at], []byte(insert), data[at:])
	want := append(c.Imports, pattern)
	err = onlyImports(data, out, want)
	if err == nil {
		// As containerd reads it: in its names capitals do not count, and of
		// two the last holds.
		if c, err = parseConfig(out); err == nil && !slices.Equal(c.Imports, want) {
			err = fmt.Errorf("its %s are also written with capitals", keyImports)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w; add %s to its imports by hand", err, quote(pattern))
	}
	return out, nil
}

// importEdit says what to insert where.
func importEdit(data []byte, pattern string) (at int, insert string, err error) {
	var p unstable.Parser
	p.Reset(data)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Table || e.Kind == unstable.ArrayTable {
			break // from here on keys belong to a table
		}
		if e.Kind != unstable.KeyValue {
			continue
		}
		keys := e.Key()
		if !keys.Next() || string(keys.Node().Data) != keyImports {
			continue
		}
		if e.Value().Kind != unstable.Array {
			return 0, "", errors.New("its imports are no list")
		}
		return arrayEdit(data, p.Range(keys.Node().Data), pattern)
	}
	if err := p.Error(); err != nil {
		return 0, "", err
	}
	return 0, fmt.Sprintf("%s = [%s] # by c8s\n", keyImports, quote(pattern)), nil
}

// arrayEdit finds the place behind the last value of the array that follows a
// key. The file has been parsed, so only what an array of strings may hold can
// come here; the caller proves the result all the same.
func arrayEdit(data []byte, key unstable.Range, pattern string) (int, string, error) {
	i := int(key.Offset + key.Length)
	open := bytes.IndexByte(data[i:], '[')
	if open < 0 {
		return 0, "", errors.New("its imports are no list")
	}
	i += open + 1
	last, comma := i, true // where the last value or comma ended, and whether it was a comma
	for i < len(data) {
		switch ch := data[i]; ch {
		case ']':
			if comma {
				return last, quote(pattern), nil
			}
			return last, ", " + quote(pattern), nil
		case '#':
			end := bytes.IndexByte(data[i:], '\n')
			if end < 0 {
				return 0, "", errors.New("its imports do not end")
			}
			i += end + 1
		case '"', '\'':
			i = stringEnd(data, i)
			last, comma = i, false
		case ',':
			i++
			last, comma = i, true
		default:
			i++
		}
	}
	return 0, "", errors.New("its imports do not end")
}

// stringEnd returns the place behind the string that starts at i.
func stringEnd(data []byte, i int) int {
	mark := data[i]
	for i++; i < len(data) && data[i] != mark; i++ {
		if data[i] == '\\' && mark == '"' {
			i++
		}
	}
	return min(i+1, len(data))
}

// onlyImports proves that an edit changed the imports and nothing else.
func onlyImports(before, after []byte, imports []string) error {
	var a, b map[string]any
	if err := toml.Unmarshal(before, &a); err != nil {
		return err
	}
	if err := toml.Unmarshal(after, &b); err != nil {
		return fmt.Errorf("the edited file would not be valid: %w", err)
	}
	want := make([]any, len(imports))
	for i, imp := range imports {
		want[i] = imp
	}
	if !reflect.DeepEqual(b[keyImports], want) {
		return errors.New("the edit would not give the right imports")
	}
	delete(a, keyImports)
	delete(b, keyImports)
	// As text, since NaN, which TOML has, is not equal to itself.
	ta, errA := toml.Marshal(a)
	tb, errB := toml.Marshal(b)
	if errA != nil || errB != nil || !bytes.Equal(ta, tb) {
		return errors.Join(errors.New("the edit would change more than the imports"), errA, errB)
	}
	return nil
}
