// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/etcdtest"
	"github.com/c8s-dev/c8s/cds/store/storetest"
)

// TestEtcdWithTheDocumentedPermissions: the role that docs/store.md gives the
// CDS is enough for everything, and for nothing outside its prefix.
func TestEtcdWithTheDocumentedPermissions(t *testing.T) {
	dir := t.TempDir()
	cert, key, clientTLS := serverCertificate(t, dir)
	cluster := etcdtest.StartWith(t, etcdtest.Options{
		TLS: clientTLS,
		// bcrypt at its lowest cost: with the default a login takes a second.
		Args: []string{"--cert-file", cert, "--key-file", key, "--bcrypt-cost", "4"},
	})
	client, err := cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	enableAuth(t, client)

	cfg := store.EtcdConfig{
		Endpoints: cluster.Endpoints(), TLS: clientTLS,
		Username: "cds", Password: "secret", Prefix: "/c8s/example.org",
	}
	storetest.Conform(t, func(t *testing.T) store.Store {
		s := openEtcd(t, cfg)
		deleteAll(t, s)
		return s
	})

	cfg.Prefix = "/c8s/example.org.evil"
	if _, err := store.OpenEtcd(cfg); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("another prefix: %v, want permission denied", err)
	}
	cfg.Prefix, cfg.Password = "/c8s/example.org", "guessed"
	if _, err := store.OpenEtcd(cfg); err == nil || strings.Contains(err.Error(), "guessed") {
		t.Errorf("another password: %v, want an error without it", err)
	}
	cfg.Password, cfg.TLS = "secret", &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	cfg.DialTimeout = 2 * time.Second
	if s, err := store.OpenEtcd(cfg); err == nil {
		s.Close()
		t.Error("connected to a server whose certificate is not trusted")
	}
}

func enableAuth(t *testing.T, client *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	steps := []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", "root"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.RoleAdd(ctx, "cds"); return err },
		func() error {
			_, err := client.RoleGrantPermission(ctx, "cds", "/c8s/example.org/",
				clientv3.GetPrefixRangeEnd("/c8s/example.org/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := client.UserAdd(ctx, "cds", "secret"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "cds", "cds"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

// deleteAll deletes what an earlier test left.
func deleteAll(t *testing.T, s store.Store) {
	t.Helper()
	err := s.Scan(t.Context(), "", func(key string, _ store.Value) error {
		_, err := s.Commit(context.WithoutCancel(t.Context()), store.Txn{DeletePrefix: []string{key[:1]}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// serverCertificate writes a self-signed one for the loopback address and
// returns what clients trust.
func serverCertificate(t *testing.T, dir string) (certFile, keyFile string, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "etcd"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, data := range map[string][]byte{
		certFile: certPEM,
		keyFile:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
