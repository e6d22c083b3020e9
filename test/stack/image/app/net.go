// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// serve answers until it is told to end.
func serve(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("serve", flag.ContinueOnError)
	httpAddr := set.String("http", ":8080", "says who it is, over HTTP; empty: not")
	tcpAddr := set.String("tcp", ":9000", "echoes lines, after its name; empty: not")
	udpAddr := set.String("udp", "", "echoes packets, after its name; empty: not")
	host, _ := os.Hostname()
	name := set.String("name", host, "who it is")
	if err := set.Parse(args); err != nil {
		return err
	}
	ended := make(chan error, 3)
	if *httpAddr != "" {
		l, err := net.Listen("tcp", *httpAddr)
		if err != nil {
			return err
		}
		go func() { ended <- http.Serve(l, whoami(*name)) }()
	}
	if *tcpAddr != "" {
		l, err := net.Listen("tcp", *tcpAddr)
		if err != nil {
			return err
		}
		go func() { ended <- echoLines(l, *name) }()
	}
	if *udpAddr != "" {
		c, err := net.ListenPacket("udp", *udpAddr)
		if err != nil {
			return err
		}
		go func() { ended <- echoPackets(c, *name) }()
	}
	say(map[string]any{"serving": *name})
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

func whoami(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"name":%q,"path":%q,"client":%q}`+"\n", name, r.URL.Path, r.RemoteAddr)
	})
}

func echoLines(l net.Listener, name string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			for lines := bufio.NewScanner(c); lines.Scan(); {
				if _, err := fmt.Fprintf(c, "%s %s\n", name, lines.Text()); err != nil {
					return
				}
			}
		}()
	}
}

func echoPackets(c net.PacketConn, name string) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(packetWriter{c, from}, "%s %s", name, buf[:n])
	}
}

type packetWriter struct {
	c  net.PacketConn
	to net.Addr
}

func (w packetWriter) Write(p []byte) (int, error) { return w.c.WriteTo(p, w.to) }

// within bounds one exchange: longer means that nobody answers.
const within = 5 * time.Second

func get(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: get URL")
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	say(map[string]any{"status": resp.StatusCode, "body": string(body)})
	return nil
}

func dial(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: dial NETWORK ADDRESS [TEXT]")
	}
	text := strings.Join(args[2:], " ")
	answer, err := exchange(ctx, args[0], args[1], text)
	if err != nil {
		return err
	}
	say(map[string]any{"answer": answer})
	return nil
}

// exchange makes a connection, sends a line and returns the one that comes
// back.
func exchange(ctx context.Context, network, address, text string) (string, error) {
	d := net.Dialer{Timeout: within}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "%s\n", text); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}

// every reads the optional interval.
func every(args []string) (address string, interval time.Duration, err error) {
	if len(args) == 0 {
		return "", 0, errors.New("usage: ADDRESS [INTERVAL]")
	}
	interval = 100 * time.Millisecond
	if len(args) > 1 {
		interval, err = time.ParseDuration(args[1])
	}
	return args[0], interval, err
}

// hold ends with an error as soon as its connection does.
func hold(ctx context.Context, args []string) error {
	address, interval, err := every(args)
	if err != nil {
		return err
	}
	c, err := net.DialTimeout("tcp", address, within)
	if err != nil {
		return err
	}
	defer c.Close()
	lines := bufio.NewReader(c)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 1; ; n++ {
		_ = c.SetDeadline(time.Now().Add(within))
		if _, err := fmt.Fprintf(c, "%d\n", n); err != nil {
			return fmt.Errorf("after %d: %w", n-1, err)
		}
		answer, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("after %d: %w", n-1, err)
		}
		say(map[string]any{"held": n, "answer": strings.TrimSpace(answer)})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// tellEvery is after how many connections flood says how it goes.
const tellEvery = 20

// flood reports each failure when it happens; now and then and at the end the
// sums so far, and the longest time that a connection took since it last did.
func flood(ctx context.Context, args []string) error {
	address, interval, err := every(args)
	if err != nil {
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	good, bad, longest := 0, 0, time.Duration(0)
	tell := func() {
		say(map[string]any{"good": good, "bad": bad, "longestMillis": longest.Milliseconds()})
		longest = 0
	}
	for ctx.Err() == nil {
		began := time.Now()
		if _, err := exchange(context.WithoutCancel(ctx), "tcp", address, "flood"); err != nil {
			bad++
			say(map[string]any{"failed": err.Error(), "after": good})
		} else if good++; good == 1 {
			say(map[string]any{"started": true})
		}
		longest = max(longest, time.Since(began))
		if (good+bad)%tellEvery == 0 {
			tell()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	tell()
	return nil
}
