// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/c8s-dev/c8s/cds/store"
)

// crashEnv makes the test a writer that writes until it is killed.
const crashEnv = "C8S_STORE_TEST_WRITE_TO"

func TestFileSurvivesKills(t *testing.T) {
	if path := os.Getenv(crashEnv); path != "" {
		writeForever(t, path)
	}
	path := filepath.Join(t.TempDir(), "store")
	last := uint64(0)
	for round := range 8 {
		last = writeAndKill(t, path, 1+5*round, last)
		s, err := store.OpenFile(path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		found := readPair(t, s)
		if found != last && found != last+1 {
			t.Fatalf("round %d: %d is there, want %d, which was acknowledged, or the next", round, found, last)
		}
		last = found
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// writeForever writes the same growing number to two keys, large enough to
// span pages, and prints each that was acknowledged.
func writeForever(t *testing.T, path string) {
	s := openFile(t, path)
	for n := readPair(t, s) + 1; ; n++ {
		data := append(binary.BigEndian.AppendUint64(nil, n), bytes.Repeat([]byte{byte(n)}, 10_000)...)
		_, err := s.Commit(t.Context(), store.Txn{
			Put:          []store.Item{{Key: "a", Data: data}, {Key: "z", Data: data}, {Key: fmt.Sprintf("m/%d/", n)}},
			DeletePrefix: []string{fmt.Sprintf("m/%d/", n-1)},
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("wrote", n)
	}
}

// readPair fails t if the two differ.
func readPair(t *testing.T, s store.Store) uint64 {
	t.Helper()
	a, errA := s.Get(t.Context(), "a")
	z, errZ := s.Get(t.Context(), "z")
	if errA != nil && errZ != nil {
		return 0
	}
	if errA != nil || errZ != nil || !bytes.Equal(a.Data, z.Data) || a.Version != z.Version {
		t.Fatalf("half a transaction: %v, %v, versions %d and %d", errA, errZ, a.Version, z.Version)
	}
	return binary.BigEndian.Uint64(a.Data)
}

// writeAndKill runs the writer, kills it after some acknowledgements, and
// returns the last.
func writeAndKill(t *testing.T, path string, acks int, last uint64) uint64 {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileSurvivesKills$")
	cmd.Env = append(os.Environ(), crashEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, ok := bytes.CutPrefix(lines.Bytes(), []byte("wrote "))
		if !ok {
			t.Logf("the writer: %s", lines.Text())
			continue
		}
		if last, err = strconv.ParseUint(string(n), 10, 64); err != nil {
			t.Fatal(err)
		}
		if acks--; acks == 0 {
			cmd.Process.Kill() // what it printed until then is still read
		}
	}
	if err := cmd.Wait(); acks > 0 {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	return last
}
