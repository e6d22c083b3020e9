// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// within bounds what a client does once.
const within = time.Minute

// Client is somebody who uses services on port 443, and knows the CA that issues
// their certificates.
type Client struct {
	Dial  func(ctx context.Context, network, addr string) (net.Conn, error)
	Roots *x509.CertPool
}

// HTTP is a browser of its own, so with connections of its own. It follows no
// redirects.
func (c *Client) HTTP() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DialContext: c.Dial, TLSClientConfig: &tls.Config{RootCAs: c.Roots}, ForceAttemptHTTP2: true},
		Timeout:       within,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Events wants App's events while the answer goes on: it has no end.
func (c *Client) Events(ctx context.Context, host string) error {
	hc := c.HTTP()
	defer hc.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/events", nil)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const want = "data: 0\n\ndata: 1\n\ndata: 2\n\n"
	got := make([]byte, len(want))
	if n, err := io.ReadFull(resp.Body, got); err != nil {
		return fmt.Errorf("events of %s: %s, %q: %w", host, resp.Status, got[:n], err)
	}
	if string(got) != want {
		return fmt.Errorf("events of %s: got %q, want %q", host, got, want)
	}
	return nil
}

// WebSocket wants a short message and a long one of App's echo.
func (c *Client) WebSocket(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	conn, err := c.Dial(ctx, "tcp", host+":443")
	if err != nil {
		return err
	}
	over := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: c.Roots, NextProtos: []string{"http/1.1"}})
	defer over.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	config, err := websocket.NewConfig("wss://"+host+"/ws", "https://"+host)
	if err != nil {
		return err
	}
	ws, err := websocket.NewClient(config, over)
	if err != nil {
		return fmt.Errorf("opening a WebSocket to %s: %w", host, err)
	}
	for _, text := range []string{"hello", strings.Repeat("long ", 20_000)} {
		if err := echoes(ws, text); err != nil {
			return fmt.Errorf("WebSocket of %s: %w", host, err)
		}
	}
	return nil
}

func echoes(ws *websocket.Conn, text string) error {
	if err := websocket.Message.Send(ws, text); err != nil {
		return err
	}
	var back string
	for len(back) < len(text) { // the echo may come in other frames
		var part string
		if err := websocket.Message.Receive(ws, &part); err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", len(back), len(text), err)
		}
		back += part
	}
	if back != text {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// Interop is what gRPC's implementations check each other with, against GRPC.
// These checks end the process where they fail; say names each before.
func (c *Client) Interop(ctx context.Context, host string, say func(check string)) error {
	conn, err := grpc.NewClient(
		"passthrough:///"+host+":443",
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{ServerName: host, RootCAs: c.Roots})),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return c.Dial(ctx, "tcp", addr) }),
	)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	client := testgrpc.NewTestServiceClient(conn)
	for name, check := range map[string]func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
		"empty unary": interop.DoEmptyUnaryCall, "large unary": interop.DoLargeUnaryCall,
		"client streaming": interop.DoClientStreaming, "server streaming": interop.DoServerStreaming, "ping pong": interop.DoPingPong, "empty stream": interop.DoEmptyStream,
		"cancel after begin": interop.DoCancelAfterBegin, "cancel after first response": interop.DoCancelAfterFirstResponse,
		"timeout on sleeping server": interop.DoTimeoutOnSleepingServer,
		"custom metadata":            interop.DoCustomMetadata, "status code and message": interop.DoStatusCodeAndMessage, "special status message": interop.DoSpecialStatusMessage,
	} {
		say(name)
		check(ctx, client)
	}
	return nil
}
