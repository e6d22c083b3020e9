// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A message of TLS itself is no word of the tunnel, and crypto/tls reads on
// after it. A peer that sends one between two streams, and then nothing, must
// not have whoever returns or takes the tunnel wait.
func TestIdleWaitsForNobody(t *testing.T) {
	client, server := testTLS(t)
	var keys bytes.Buffer
	server.KeyLogWriter = &keys
	a, b := tcpPair(t)
	accepted := make(chan error, 1)
	go func() {
		acceptor, err := Accepted(context.Background(), b, server, new(Buffers))
		if err == nil && acceptor.State().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
			err = fmt.Errorf("the cipher suite is %#x", acceptor.State().CipherSuite)
		}
		accepted <- err
	}()
	opener, err := Dialed(context.Background(), a, client, new(Buffers))
	if err != nil {
		t.Fatal(err)
	}
	defer opener.Kill(ReasonShutdown)
	defer b.Close()
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	const ready = 1 // records that the acceptor has sent
	if _, err := b.Write(keyUpdate(t, keys.String(), ready)); err != nil {
		t.Fatal(err)
	}
	for pollNow(opener.in.rc)&unix.POLLIN == 0 { // until it has arrived
		runtime.Gosched()
	}
	idle := make(chan bool, 1)
	go func() { idle <- opener.Idle() }()
	select {
	case again := <-idle:
		if again {
			t.Error("a tunnel whose peer does what no peer does is used again")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a record that never comes")
	}
}

// keyUpdate is a record of the server with a KeyUpdate (RFC 8446, section
// 4.6.3), sealed by the keys in log as its record number seq.
func keyUpdate(t *testing.T, log string, seq uint64) []byte {
	t.Helper()
	_, line, ok := strings.Cut(log, "SERVER_TRAFFIC_SECRET_0 ")
	if !ok {
		t.Fatalf("no secret in %q", log)
	}
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	expand := func(label string, n int) []byte {
		info := binary.BigEndian.AppendUint16(nil, uint16(n))
		info = append(info, byte(len("tls13 "+label)))
		info = append(info, "tls13 "+label+"\x00"...)
		out, err := hkdf.Expand(sha256.New, secret, string(info), n)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	block, err := aes.NewCipher(expand("key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := expand("iv", aead.NonceSize())
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(seq >> (8 * i))
	}
	const handshake, message = 22, "\x18\x00\x00\x01\x00"
	inner := append([]byte(message), handshake)
	header := []byte{23, 3, 3, 0, byte(len(inner) + aead.Overhead())}
	return append(header, aead.Seal(nil, nonce, inner, header)...)
}

// Late resets are allowed between streams; a peer that sends nothing else, and
// does not stop, is not waited for either.
func TestIdleHearsOnlySoMuch(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		opener, acceptor := tunnelPair(t, useTLS)
		flood := bytes.Repeat(appendRst(nil, 0, ReasonReset), 1000)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			acceptor.wmu.Lock()
			defer acceptor.wmu.Unlock()
			for acceptor.write(flood) == nil { //nolint:revive // until the opener hangs up
			}
		}()
		idle := make(chan bool, 1)
		go func() {
			for opener.Idle() { // it may be asked before anything has come
			}
			idle <- false
		}()
		select {
		case <-idle:
		case <-time.After(10 * time.Second):
			t.Error("it listens for ever")
		}
		opener.Kill(ReasonShutdown)
		<-sent
	})
}
