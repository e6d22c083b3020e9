// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketIsItsOwnersAndReplacesAStaleOne(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		dir := filepath.Join(t.TempDir(), "run")
		for range 2 { // the second time the first one's socket is there
			ln, err := Listen(dir, "s.sock", network)
			if err != nil {
				t.Fatal(err)
			}
			ln.Close()
		}
		info, err := os.Stat(filepath.Join(dir, "s.sock"))
		if err != nil {
			t.Fatalf("closing a listener removed the file, which may be a successor's: %v", err)
		}
		if info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("mode %s, want a socket with 0600", info.Mode())
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("the folder holds %v (%v), want the socket alone", entries, err)
		}
	}
}

func TestFolderThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := Listen(file, "s.sock", "unix"); err == nil {
		ln.Close()
		t.Error("listening in a file")
	}
}

func TestBothEndsKnowWhoTheOtherIs(t *testing.T) {
	dir := t.TempDir()
	ln, err := Listen(dir, "s", "unix")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	us := uint32(os.Geteuid())
	for _, conn := range []net.Conn{client, server} {
		if err := CheckPeer(conn, us); err != nil {
			t.Error(err)
		}
		if err := CheckPeer(conn, us+1); err == nil || !strings.Contains(err.Error(), "expected user") {
			t.Errorf("taken for another user: %v", err)
		}
	}
	one, other := net.Pipe()
	defer one.Close()
	defer other.Close()
	if err := CheckPeer(one, us); err == nil {
		t.Error("a pipe has a user")
	}
	client.Close()
	if err := CheckPeer(client, us); err == nil {
		t.Error("a closed connection has a user")
	}
}
