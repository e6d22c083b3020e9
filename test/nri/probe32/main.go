// SPDX-License-Identifier: Apache-2.0

//go:build linux && 386

// Command probe32 tries to make sockets as 32-bit x86 programs can: by
// socketcall(2), whose arguments a seccomp filter cannot read.
package main

import (
	"encoding/json"
	"os"
	"syscall"
	"unsafe"
)

const (
	sysSocketcall = 102
	sysSocket     = 359
	makeSocket    = 1 // of socketcall
)

func main() {
	found := map[string]string{}
	for name, family := range map[string]uintptr{"vsock": 40, "packet": 17, "tcp": 2} {
		args := [3]uintptr{family, syscall.SOCK_STREAM, 0}
		_, _, e := syscall.Syscall(sysSocketcall, makeSocket, uintptr(unsafe.Pointer(&args)), 0)
		found["socketcall "+name] = errno(e)
		_, _, e = syscall.Syscall(sysSocket, family, syscall.SOCK_STREAM, 0)
		found["socket "+name] = errno(e)
	}
	_ = json.NewEncoder(os.Stdout).Encode(found)
}

func errno(e syscall.Errno) string {
	if e == 0 {
		return "ok"
	}
	return e.Error()
}
