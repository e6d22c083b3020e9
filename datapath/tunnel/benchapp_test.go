// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The benchmark's applications run in processes of their own (this binary,
// started again), so that the CPU reported is the proxies' alone.
const appEnv = "C8S_TUNNEL_BENCH_APP"

func TestMain(m *testing.M) {
	if app := os.Getenv(appEnv); app != "" {
		if err := runApp(strings.Fields(app)); err != nil {
			fmt.Fprintln(os.Stderr, app, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func startApp(tb testing.TB, args ...any) (stdout *bufio.Reader, wait func()) {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), appEnv+"="+strings.TrimSpace(fmt.Sprintln(args...)))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // closing it ends the application
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	var once sync.Once
	wait = func() {
		once.Do(func() {
			if err := cmd.Wait(); err != nil {
				tb.Errorf("%v: %v", args, err)
			}
		})
	}
	tb.Cleanup(func() { in.Close(); wait() })
	return bufio.NewReader(out), wait
}

// startServer starts a server application and returns its address.
func startServer(tb testing.TB, app string) string {
	out, _ := startApp(tb, app)
	addr, err := out.ReadString('\n')
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(addr)
}

func runApp(args []string) error {
	switch args[0] {
	case "sink":
		return appServe(func(c net.Conn, buf []byte) error { _, err := c.Read(buf); return err })
	case "fount":
		return appServe(func(c net.Conn, buf []byte) error { _, err := c.Write(buf); return err })
	case "source":
		flows, _ := strconv.Atoi(args[2])
		chunks, _ := strconv.Atoi(args[3])
		return appSource(args[1], flows, chunks)
	case "echo":
		return appEcho()
	case "requests":
		conns, _ := strconv.Atoi(args[2])
		n, _ := strconv.Atoi(args[3])
		return appRequests(args[1], conns, n, args[4] == "reconnect")
	}
	return fmt.Errorf("unknown application")
}

func appEcho() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 32<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// appRequests sends n requests of 1 KB and waits for each answer, over conns
// connections, kept or made anew for each, and prints how long it took.
func appRequests(addr string, conns, n int, reconnect bool) error {
	var wg sync.WaitGroup
	errs := make(chan error, conns)
	began := time.Now()
	for i := range conns {
		wg.Go(func() {
			if err := requests(addr, (n+conns-1-i)/conns, reconnect); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	fmt.Println(time.Since(began).Nanoseconds())
	close(errs)
	return <-errs
}

func requests(addr string, n int, reconnect bool) error {
	buf := make([]byte, 1024)
	var c *net.TCPConn
	for i := range n {
		var err error
		if c == nil {
			if c, err = tryDial(addr); err != nil {
				return err
			}
		}
		if _, err := c.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return fmt.Errorf("answer %d: %w", i, err)
		}
		if reconnect {
			c.Close()
			c = nil
		}
	}
	return nil
}

// appServe does step with each connection until it fails.
func appServe(step func(c net.Conn, buf []byte) error) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 256<<10)
				for step(c, buf) == nil {
				}
			}()
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// appSource writes chunks of 256 KiB, shared by the flows, and waits until
// the far side has read them all.
func appSource(addr string, flows, chunks int) error {
	var wg sync.WaitGroup
	errs := make(chan error, flows)
	for i := range flows {
		wg.Go(func() {
			c, err := tryDial(addr)
			if err != nil {
				errs <- err
				return
			}
			buf := make([]byte, 256<<10)
			for n := i; n < chunks; n += flows {
				if _, err := c.Write(buf); err != nil {
					errs <- err
					return
				}
			}
			if err := c.CloseWrite(); err != nil {
				errs <- err
				return
			}
			if n, err := c.Read(buf); n != 0 || err != io.EOF {
				errs <- fmt.Errorf("end of connection: %d bytes, %v", n, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}
