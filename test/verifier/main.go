// SPDX-License-Identifier: Apache-2.0

// Verifier checks one certificate, or what an ingress shows, back to the
// operators' signatures. Its invariant: it says ok only where every link was
// recomputed from public documents, and it shares no code with what made them.
// It imports no package of this module (a test sees to that): what it knows, it
// knows from docs/, so where the two disagree, one of them is wrong.
// docs/verify.md explains it.
//
// It exits with 0 if everything is as it should be, 1 if something is not, 2
// if it could not begin, and 3 if nothing is wrong but something is of a kind
// that it cannot check.
package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	exitGood = iota
	exitBad
	exitUsage
	exitOpen
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, problems io.Writer) int {
	a, err := begin(args, problems)
	if err != nil {
		fmt.Fprintln(problems, "verifier:", err)
		return exitUsage
	}
	return a.check(out)
}

// begin reads the arguments and what the auditor brings along.
func begin(args []string, problems io.Writer) (*audit, error) {
	f := flag.NewFlagSet("verifier", flag.ContinueOnError)
	f.SetOutput(problems)
	operators := f.String("operators", "", "the operators' `file`: whom you trust")
	documents := f.String("documents", "", "`URL` of a CDS, or a folder with its documents")
	at := f.String("at", "", "judge as of this `time`, RFC 3339 (default now)")
	beacon := f.Duration("beacon", 0, "require a beacon at most this old")
	save := f.String("save", "", "keep the documents that were read in this `folder`")
	attestation := f.String("ingress", "", "judge the attestation of an ingress in this `file`, and the certificate in it")
	host := f.String("host", "", "the `name` that the ingress was asked for")
	tlsKey := f.String("tls-key", "", "SHA-256 of the SubjectPublicKeyInfo that the connection ended at, in `hexadecimal`")
	nonce := f.String("nonce", "", "that was sent to the ingress, in `hexadecimal`")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	certificates := 1
	if *attestation != "" {
		certificates = 0
	}
	if f.NArg() != certificates || *operators == "" || *documents == "" || (*attestation == "") != (*host == "") {
		return nil, errors.New("usage: verifier -operators FILE -documents URL|FOLDER [-at TIME] [-beacon AGE] [-save FOLDER] CERTIFICATE.pem | -ingress FILE -host NAME [-tls-key HEX] [-nonce HEX]")
	}
	a := &audit{now: time.Now(), beaconAge: *beacon}
	var err error
	if *at != "" {
		if a.now, err = time.Parse(time.RFC3339, *at); err != nil {
			return nil, err
		}
	}
	if a.operatorsFile, err = os.ReadFile(*operators); err != nil {
		return nil, err
	}
	if *attestation != "" {
		err = a.beginIngress(*attestation, *host, *tlsKey, *nonce)
	} else {
		a.leaf, a.issuer, err = readPEM(f.Arg(0))
	}
	if err != nil {
		return nil, err
	}
	a.documents, err = openDocuments(*documents, *save)
	return a, err
}

// beginIngress reads what an ingress showed.
func (a *audit) beginIngress(file, host, tlsKey, nonce string) (err error) {
	q := &ingressQuestion{host: host, tlsKey: tlsKey}
	if q.nonce, err = hex.DecodeString(nonce); err != nil {
		return err
	}
	if q.text, err = os.ReadFile(file); err != nil {
		return err
	}
	a.ingress = q
	a.leaf, a.issuer, err = q.open()
	return err
}

// check runs the steps up to the first that fails: each rests on those before.
func (a *audit) check(out io.Writer) int {
	all, open := steps(), 0
	if a.ingress != nil {
		all = append(all, ingressSteps()...)
	}
	for i, s := range all {
		found, err := s.run(a)
		switch {
		case isUndecided(err):
			open++
			fmt.Fprintf(out, "open %-16s %s: %v\n", s.name, s.what, err)
		case err != nil:
			fmt.Fprintf(out, "FAIL %-16s %s: %v\n", s.name, s.what, err)
			fmt.Fprintf(out, "The certificate is not what it says, or the documents are not complete. %d steps were not reached.\n", len(all)-i-1)
			return exitBad
		default:
			fmt.Fprintf(out, "ok   %-16s %s: %s\n", s.name, s.what, found)
		}
	}
	if open > 0 {
		fmt.Fprintf(out, "Nothing is wrong, but %d steps are open.\n", open)
		return exitOpen
	}
	fmt.Fprintln(out, "The certificate goes back to the operators' signatures.")
	return exitGood
}

// undecided is why something can be called neither good nor bad.
type undecided string

func (u undecided) Error() string { return string(u) }

func isUndecided(err error) bool { return errors.As(err, new(undecided)) }

// mismatch is the result of a check that failed.
type mismatch struct{ what, expected, actual string }

func (m *mismatch) Error() string {
	return fmt.Sprintf("%s: expected %s, found %s", m.what, m.expected, m.actual)
}

// same fails unless both are equal.
func same[T comparable](what string, expected, actual T) error {
	if expected == actual {
		return nil
	}
	return &mismatch{what, fmt.Sprint(expected), fmt.Sprint(actual)}
}

// must fails unless the condition holds.
func must(ok bool, what, expected string, actual any) error {
	if ok {
		return nil
	}
	return &mismatch{what, expected, fmt.Sprint(actual)}
}
