// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"text/template"
	"time"

	"github.com/c8s-dev/c8s/test/lab"
)

// nginxConfig does what the ingress does: it ends TLS with full handshakes,
// keeps connections on both sides, tells the backend who the client is, and
// logs no requests.
var nginxConfig = template.Must(template.New("nginx.conf").Parse(`
daemon off;
user root;
pid {{.Dir}}/pid;
error_log stderr warn;
worker_processes {{.Workers}};
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path {{.Dir}}/body;
  proxy_temp_path {{.Dir}}/proxy;
  fastcgi_temp_path {{.Dir}}/fastcgi;
  uwsgi_temp_path {{.Dir}}/uwsgi;
  scgi_temp_path {{.Dir}}/scgi;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache off;
  ssl_session_tickets off;
  ssl_certificate {{.Dir}}/cert.pem;
  ssl_certificate_key {{.Dir}}/key.pem;
  upstream web { server {{.Backend}}; keepalive 128; keepalive_requests 1000000000; }
  server {
    listen {{.Listen}} ssl http2 reuseport backlog=4096;
    server_name {{.Host}};
    location / {
      proxy_pass http://web;
      proxy_http_version 1.1;
      proxy_max_temp_file_size 0;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Proto $scheme;
    }
  }
}
`))

// nginxProgram is Debian's nginx-light, which hack/deps bench installs.
func nginxProgram() (string, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/nginx")
	}
	if err != nil {
		return "", errors.New("there is no nginx to compare with: run hack/deps bench")
	}
	return path, nil
}

// startNginx runs nginx in a namespace until ctx ends.
func startNginx(ctx context.Context, in *lab.NS, dir string, listen, backend netip.AddrPort) (pid int, err error) {
	program, err := nginxProgram()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	if err := selfSigned(dir); err != nil {
		return 0, err
	}
	var config bytes.Buffer
	if err := nginxConfig.Execute(&config, map[string]any{
		"Dir": dir, "Workers": runtime.NumCPU(), "Backend": backend, "Listen": listen, "Host": webHost,
	}); err != nil {
		return 0, err
	}
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, config.Bytes(), 0o600); err != nil {
		return 0, err
	}
	cmd := in.Command(ctx, program, "-e", "stderr", "-p", dir, "-c", path)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("starting nginx: %w", err)
	}
	go func() { _ = cmd.Wait() }() // killed with the lab
	return cmd.Process.Pid, nil
}

// selfSigned writes a certificate as the ingress makes it for development.
func selfSigned(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: webHost}, DNSNames: []string{webHost},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
