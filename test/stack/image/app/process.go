// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// sockets says for every kind of socket whether the kernel and the seccomp
// profile let this process have one: "ok" or the name of the error.
func sockets(context.Context, []string) error {
	kinds := []struct {
		name                 string
		domain, kind, number int
	}{
		{"tcp", unix.AF_INET, unix.SOCK_STREAM, 0},
		{"tcp6", unix.AF_INET6, unix.SOCK_STREAM, 0},
		{"udp", unix.AF_INET, unix.SOCK_DGRAM, 0},
		{"sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP},
		{"mptcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
		{"ping", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW},
		{"raw6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW},
		{"unix", unix.AF_UNIX, unix.SOCK_STREAM, 0},
		{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"packet-dgram", unix.AF_PACKET, unix.SOCK_DGRAM, 0},
		{"xdp", unix.AF_XDP, unix.SOCK_RAW, 0},
		{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		{"netlink", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
		{"alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		{"bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 0},
		{"can", unix.AF_CAN, unix.SOCK_RAW, 0},
		{"smc", unix.AF_SMC, unix.SOCK_STREAM, 0},
		{"rds", unix.AF_RDS, unix.SOCK_SEQPACKET, 0},
		{"tipc", unix.AF_TIPC, unix.SOCK_STREAM, 0},
		{"qipcrtr", unix.AF_QIPCRTR, unix.SOCK_DGRAM, 0},
	}
	found := map[string]string{}
	for _, k := range kinds {
		fd, err := unix.Socket(k.domain, k.kind|unix.SOCK_CLOEXEC, k.number)
		if err == nil {
			_ = unix.Close(fd)
		}
		found[k.name] = errno(err)
	}
	found["bpf"] = errno(try(unix.SYS_BPF))
	found["io_uring"] = errno(try(unix.SYS_IO_URING_SETUP))
	found["socketpair-vsock"] = errno(pair(unix.AF_VSOCK))
	say(found)
	return nil
}

// try makes a system call with arguments that cannot succeed: what comes back
// shows whether the kernel got to look at them.
func try(number uintptr) error {
	_, _, e := unix.Syscall(number, ^uintptr(0), 0, 0)
	if e == 0 {
		return nil
	}
	return e
}

func pair(domain int) error {
	fds, err := unix.Socketpair(domain, unix.SOCK_STREAM, 0)
	if err == nil {
		_, _ = unix.Close(fds[0]), unix.Close(fds[1])
	}
	return err
}

func errno(err error) string {
	var e unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// env says what the process was started with.
func env(context.Context, []string) error {
	cwd, _ := os.Getwd()
	groups, _ := os.Getgroups()
	host, _ := os.Hostname()
	status := map[string]string{}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
			status[key] = strings.TrimSpace(value)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	say(map[string]any{
		"args": os.Args, "env": os.Environ(), "cwd": cwd, "host": host,
		"uid": os.Getuid(), "gid": os.Getgid(), "groups": groups, "status": status,
		"mounts": strings.Split(strings.TrimSpace(string(mounts)), "\n"),
	})
	return nil
}

func read(_ context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: read FILE")
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}

func write(_ context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: write FILE TEXT")
	}
	return os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")), 0o600)
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: run COMMAND")
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	return err
}
