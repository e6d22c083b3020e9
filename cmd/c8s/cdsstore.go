// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/internal/filelock"
)

// storeFlags choose where a CDS keeps what it must not forget.
type storeFlags struct {
	stateDir string
	etcd     []string
	prefix   string
	ca       string
	cert     string
	key      string
	user     string
	password string
}

const storeTimeout = 5 * time.Second

func (f *storeFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.stateDir, "state-dir", "/var/lib/c8s-cds", "folder of the store, a file, where no etcd is used")
	fl.StringSliceVar(&f.etcd, "etcd", nil, "URLs of etcd members, which make a store for several replicas (repeatable)")
	fl.StringVar(&f.prefix, "etcd-prefix", "/c8s/", "what the names of the CDS's keys in etcd begin with")
	fl.StringVar(&f.ca, "etcd-ca", "", "file with the certificates etcd's must chain to; the machine's own roots if empty")
	fl.StringVar(&f.cert, "etcd-cert", "", "file with a client certificate for etcd")
	fl.StringVar(&f.key, "etcd-key", "", "file with the key of --etcd-cert")
	fl.StringVar(&f.user, "etcd-user", "", "name for etcd's own authentication")
	fl.StringVar(&f.password, "etcd-password-file", "", "file with the password of --etcd-user")
}

func (f *storeFlags) open(log *slog.Logger) (store.Store, error) {
	if len(f.etcd) == 0 {
		if err := os.MkdirAll(f.stateDir, 0o700); err != nil {
			return nil, fmt.Errorf("making the state folder: %w", err)
		}
		kept, err := store.OpenFile(filepath.Join(f.stateDir, "cds.db"))
		if errors.Is(err, filelock.ErrHeld) {
			return nil, exit.Usage(err)
		}
		return kept, err
	}
	cfg := store.EtcdConfig{
		Endpoints: f.etcd, Prefix: f.prefix, Username: f.user, DialTimeout: storeTimeout, RequestTimeout: storeTimeout, Log: log,
	}
	secure := false
	for _, endpoint := range f.etcd {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, exit.Usage(fmt.Errorf("--etcd: %q is not a URL like https://10.0.0.1:2379", endpoint))
		}
		secure = secure || u.Scheme == "https"
	}
	if f.password != "" {
		raw, err := os.ReadFile(f.password)
		if err != nil {
			return nil, fmt.Errorf("reading etcd's password: %w", err)
		}
		cfg.Password = string(trimLine(raw))
	}
	var err error
	if secure {
		cfg.TLS, err = f.tls()
	}
	if err != nil {
		return nil, err
	}
	return store.OpenEtcd(cfg)
}

// trimLine cuts one line end off, as editors leave it.
func trimLine(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}

func (f *storeFlags) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("reading etcd's CA: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading etcd's CA: %s holds no certificate in PEM", f.ca)
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, exit.Usage(errors.New("--etcd-cert and --etcd-key go together"))
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate for etcd: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
