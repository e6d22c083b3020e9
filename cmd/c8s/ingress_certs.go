// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/ingress/certs"
)

// ingressCertsFlags say where certificates come from.
type ingressCertsFlags struct {
	directory  string
	contact    []string
	caFile     string
	eabFile    string
	challenges []string
	profile    string

	csr, certificate, root string

	selfSigned  bool
	defaultHost string
}

func (i *ingressCertsFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&i.directory, "acme-directory", "", "ACME CA that issues certificates: letsencrypt, letsencrypt-staging, or the https URL of its directory; letsencrypt means that you agree to its terms of service")
	f.StringSliceVar(&i.contact, "acme-contact", nil, "e-mail address of the ACME account, for warnings of the CA (repeatable)")
	f.StringVar(&i.caFile, "acme-ca-file", "", "PEM file of CAs for the connection to the ACME server, beside the system's")
	f.StringVar(&i.eabFile, "acme-eab-file", "", `JSON file of the account at the CA that the ACME account is bound to: {"keyId": "…", "key": "<base64url>"}`)
	f.StringSliceVar(&i.challenges, "acme-challenge", nil, "challenges in the order in which they are tried (repeatable); default: tls-alpn-01, then http-01")
	f.StringVar(&i.profile, "acme-profile", "", "profile of certificates, as the CA calls it, such as shortlived")
	f.StringVar(&i.csr, "csr-out", "", "file for the certificate request that an internal CA signs, instead of ACME; written anew when key or hosts change")
	f.StringVar(&i.certificate, "certificate", "", "with --csr-out: PEM file of the signed certificate and its issuers, leaf first; read again when it changes")
	f.StringVar(&i.root, "certificate-root", "", "with --csr-out: PEM file of the CA where the chain must end; empty takes any")
	f.BoolVar(&i.selfSigned, "self-signed", false, "for development: certificates that prove nothing to browsers")
	f.StringVar(&i.defaultHost, "default-host", "", "host whose certificate clients get that name none; empty refuses them")
	completeWith(c, "acme-directory", letsEncrypt, letsEncryptStaging)
	completeWith(c, "acme-challenge", certs.TLSALPN01, certs.HTTP01)
	completeFile(c, "pem", "acme-ca-file", "certificate", "certificate-root")
	completeFile(c, "json", "acme-eab-file")
}

// The words for directories.
const (
	letsEncrypt        = "letsencrypt"
	letsEncryptStaging = "letsencrypt-staging"
)

func (i *ingressCertsFlags) directoryURL() string {
	switch i.directory {
	case letsEncrypt:
		return certs.LetsEncrypt
	case letsEncryptStaging:
		return certs.LetsEncryptStaging
	}
	return i.directory
}

func (i *ingressCertsFlags) check() error {
	sources := 0
	for _, has := range []bool{i.directory != "", i.csr != "" || i.certificate != "", i.selfSigned} {
		if has {
			sources++
		}
	}
	switch {
	case sources == 0:
		return exit.Usage(errors.New("nobody issues certificates: give --acme-directory, --csr-out with --certificate, or --self-signed for development"))
	case sources > 1:
		return exit.Usage(errors.New("--acme-directory, --csr-out and --self-signed exclude each other"))
	case (i.csr == "") != (i.certificate == ""):
		return exit.Usage(errors.New("--csr-out and --certificate go together"))
	case i.root != "" && i.csr == "":
		return exit.Usage(errors.New("--certificate-root goes with --csr-out"))
	}
	if i.directory == "" {
		if len(i.contact) > 0 || i.caFile != "" || i.eabFile != "" || len(i.challenges) > 0 || i.profile != "" {
			return exit.Usage(errors.New("the --acme-… flags go with --acme-directory"))
		}
		return nil
	}
	if u, err := url.Parse(i.directoryURL()); err != nil || u.Scheme != "https" || u.Host == "" {
		return exit.Usage(fmt.Errorf("--acme-directory is %q, want %s, %s or an https URL", i.directory, letsEncrypt, letsEncryptStaging))
	}
	for _, c := range i.challenges {
		if c != certs.TLSALPN01 && c != certs.HTTP01 {
			return exit.Usage(fmt.Errorf("--acme-challenge is %q, want %s or %s", c, certs.TLSALPN01, certs.HTTP01))
		}
	}
	return nil
}

// config reads the files that flags name.
func (i *ingressCertsFlags) config() (certs.Config, error) {
	c := certs.Config{Default: i.defaultHost, SelfSigned: i.selfSigned}
	if i.csr != "" {
		c.CSR = &certs.CSR{Request: i.csr, Chain: i.certificate}
		if i.root == "" {
			return c, nil
		}
		var err error
		if c.CSR.Root, err = os.ReadFile(i.root); err != nil {
			return c, fmt.Errorf("reading --certificate-root: %w", err)
		}
		return c, nil
	}
	if i.directory == "" {
		return c, nil
	}
	c.ACME = &certs.ACME{Directory: i.directoryURL(), Challenges: i.challenges, Profile: i.profile}
	for _, contact := range i.contact {
		if !strings.Contains(contact, ":") {
			contact = "mailto:" + contact
		}
		c.ACME.Contact = append(c.ACME.Contact, contact)
	}
	if i.caFile != "" {
		var err error
		if c.ACME.Roots, err = os.ReadFile(i.caFile); err != nil {
			return c, fmt.Errorf("reading --acme-ca-file: %w", err)
		}
	}
	var err error
	c.ACME.EAB, err = i.externalAccount()
	return c, err
}

// externalAccount reads the account that the ACME account is bound to. Its key
// is a secret: no error repeats what the file holds.
func (i *ingressCertsFlags) externalAccount() (*certs.EAB, error) {
	if i.eabFile == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(i.eabFile)
	if err != nil {
		return nil, fmt.Errorf("reading --acme-eab-file: %w", err)
	}
	var file struct {
		KeyID string `json:"keyId"`
		Key   string `json:"key"`
	}
	if json.Unmarshal(raw, &file) != nil || file.KeyID == "" || file.Key == "" {
		return nil, fmt.Errorf(`reading --acme-eab-file: %s is not of the form {"keyId": "…", "key": "<base64url>"}`, i.eabFile)
	}
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(file.Key, "="))
	if err != nil {
		return nil, fmt.Errorf("reading --acme-eab-file: the key in %s is not base64url", i.eabFile)
	}
	return &certs.EAB{KeyID: file.KeyID, Key: key}, nil
}
