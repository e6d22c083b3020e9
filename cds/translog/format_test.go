// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func TestPathsAreThoseOfTheSpecification(t *testing.T) {
	for path, want := range map[string]tlog.Tile{
		"tile/0/000":                  {L: 0, N: 0, W: 256},
		"tile/0/x001/x234/067":        {L: 0, N: 1234067, W: 256},
		"tile/0/x001/067":             {L: 0, N: 1067, W: 256},
		"tile/3/000.p/1":              {L: 3, N: 0, W: 1},
		"tile/63/x001/x234/067.p/255": {L: 63, N: 1234067, W: 255},
		"tile/entries/000.p/5":        {L: entriesLevel, N: 0, W: 5},
		"tile/entries/x001/x234/067":  {L: entriesLevel, N: 1234067, W: 256},
	} {
		want.H = tileHeight
		got, err := parsePath(path)
		if err != nil || got != want || tilePath(want) != path {
			t.Errorf("%s: %+v, %s, %v", path, got, tilePath(want), err)
		}
	}
}

func TestOtherPathsAreRefused(t *testing.T) {
	for _, path := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/", "/tile/0/000", "tile/0/000/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/1000",
		"tile/0/-01", "tile/0/+01", "tile/0/x000/000", "tile/0/001/000", "tile/0/x001/x000", "tile/0/x01/000", "tile/00/000", "tile/64/000",
		"tile/-1/000", "tile/+1/000", "tile/data/000", "tile/8/0/000", "tile/8/data/000", "tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0",
		"tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/-1", "tile/0/x001.p/000.p/1", "tile/0/../0/000", "tile//000", "tile/entries", "tile/entries/",
		"tile/entries/data/000", "tile/entries/../../checkpoint", "tile/0/x999/x999/x999/x999/x999/x999/x999/999", "tile/0/" + strings.Repeat("x001/", 40) + "000",
	} {
		if got, err := parsePath(path); err == nil {
			t.Errorf("%q is %+v", path, got)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, path := range []string{"tile/0/x001/x234/067", "tile/entries/000.p/5", "tile/63/000", "tile/data/000", "tile/0/x000/000", "checkpoint"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p, err := parsePath(path)
		if err != nil {
			return
		}
		if tilePath(p) != path || p.N < 0 || p.W < 1 || p.W > tileWidth || p.L < entriesLevel || p.L > 63 || strings.Contains(path, "..") {
			t.Errorf("%q is %+v", path, p)
		}
	})
}

func TestBundlesThatAreNoneAreRefused(t *testing.T) {
	good := appendRecord(appendRecord(nil, []byte("one")), []byte("two"))
	if list, err := ParseBundle(good); err != nil || len(list) != 2 || string(list[1]) != "two" {
		t.Fatalf("%q, %v", list, err)
	}
	full := bytes.Repeat([]byte{0, 1, 'x'}, tileWidth)
	if list, err := ParseBundle(full); err != nil || len(list) != tileWidth {
		t.Fatalf("%d records, %v", len(list), err)
	}
	for name, bundle := range map[string][]byte{
		"empty": {}, "half a length": {0}, "a length alone": {0, 1}, "an empty record": {0, 0}, "a short record": good[:len(good)-1],
		"something after": append(bytes.Clone(good), 0), "257 records": append(bytes.Clone(full), 0, 1, 'x'),
	} {
		if list, err := ParseBundle(bundle); err == nil {
			t.Errorf("%s: %q", name, list)
		}
	}
}

func FuzzParseBundle(f *testing.F) {
	f.Add(appendRecord(appendRecord(nil, []byte("one")), []byte("two")))
	f.Add([]byte{0, 0})
	f.Add([]byte{255, 255, 1})
	f.Fuzz(func(t *testing.T, bundle []byte) {
		list, err := ParseBundle(bundle)
		if err != nil {
			return
		}
		var again []byte
		for _, r := range list {
			again = appendRecord(again, r)
		}
		if !bytes.Equal(again, bundle) || len(list) > tileWidth || !bytes.Equal(bundlePrefix(bundle, list, len(list)), bundle) {
			t.Errorf("%d records of %x", len(list), bundle)
		}
	})
}
