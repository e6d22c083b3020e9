// SPDX-License-Identifier: Apache-2.0

// Command app is what test pods run. The first argument says what it does;
// everything that it finds goes to stdout as one JSON object a line, so that
// tests compare values and not phrases.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

var commands = map[string]func(ctx context.Context, args []string) error{
	"serve":   serve,   // [-http :8080] [-tcp :9000] [-udp :9001] [-name NAME]: says who it is, echoes
	"get":     get,     // URL: status and body of an HTTP request
	"dial":    dial,    // NETWORK ADDRESS [TEXT]: sends a line, prints the one that comes back
	"hold":    hold,    // ADDRESS [INTERVAL]: echoes over one connection for as long as that lives
	"flood":   flood,   // ADDRESS [INTERVAL]: a new connection each time, until SIGTERM; counts failures
	"sockets": sockets, // tries a socket of every kind
	"env":     env,     // what it was started with
	"read":    read,    // FILE
	"write":   write,   // FILE TEXT
	"run":     run,     // COMMAND...: another process
	"sleep":   sleep,   // until SIGTERM
	"fail":    fail,    // exits with status 7
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		names := make([]string, 0, len(commands))
		for name := range commands {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "usage: %s %s ...\n", os.Args[0], strings.Join(names, "|"))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// say prints one finding.
func say(v any) { _ = json.NewEncoder(os.Stdout).Encode(v) }

func sleep(ctx context.Context, _ []string) error {
	<-ctx.Done()
	return nil
}

func fail(context.Context, []string) error {
	os.Exit(7)
	return nil
}
