// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

const maxPIN = 256 // bytes

// pin returns the PIN of a token. No error repeats any of it.
func (r *Ring) pin(u *uri) (string, error) {
	if u.pinSource == "" {
		pin, ok := r.LookupEnv(PINVariable)
		if !ok {
			return "", fmt.Errorf("the token wants a PIN: add pin-source=FILE to the URI, or set %s", PINVariable)
		}
		return checkPIN(pin, PINVariable)
	}
	path, err := pinFile(u.pinSource)
	if err != nil {
		return "", err
	}
	text, err := desk.ReadFile(path, maxPIN)
	if err != nil {
		return "", fmt.Errorf("reading the PIN: %w", err)
	}
	warnLoose(r.Warn, path)
	return checkPIN(strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), path)
}

// pinFile reads a pin-source, which is a path or a file URI (RFC 7512,
// section 2.4). The form that runs a program is not supported.
func pinFile(source string) (string, error) {
	if strings.HasPrefix(source, "|") {
		return "", errors.New("reading the PIN: pin-source runs a program; write its output to a file, or set " + PINVariable)
	}
	path, isFile := strings.CutPrefix(source, "file:")
	if rest, ok := strings.CutPrefix(path, "//"); isFile && ok {
		if path = strings.TrimPrefix(rest, "localhost"); !strings.HasPrefix(path, "/") {
			return "", errors.New("reading the PIN: pin-source names a file of another machine")
		}
	}
	return path, nil
}

func checkPIN(pin, from string) (string, error) {
	if pin == "" || len(pin) > maxPIN || strings.ContainsAny(pin, "\x00\r\n") {
		return "", fmt.Errorf("reading the PIN: %s must hold one line of 1 to %d bytes and nothing else", from, maxPIN)
	}
	return pin, nil
}

func warnLoose(warn io.Writer, path string) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&groupAndOther != 0 {
		_, _ = fmt.Fprintf(warn, "warning: others may read %s (mode %04o): run 'chmod 600 %s'\n", path, info.Mode().Perm(), path)
	}
}
