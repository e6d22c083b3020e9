// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/policy"
)

// Echo is what a service that does nothing is told: it answers with what
// somebody else once issued. It is the yardstick for what attesting, issuing
// and logging cost beyond the same messages over the same TLS.
type Echo struct {
	SimDir, Binary string
	Operators      policy.Operators
	Node, Pod      []byte // EnrolResponse
}

// Serve answers on ln until ctx ends.
func (e *Echo) Serve(ctx context.Context, ln net.Listener) error {
	att, err := devtee.Open(devtee.Options{Dir: e.SimDir, Machine: "echo", Binary: e.Binary, Operators: e.Operators})
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert, err := ratls.NativeCertificate(ctx, key, att, api.PurposeServer, time.Now())
	if err != nil {
		return err
	}
	h := &echo{}
	if err := errors.Join(proto.Unmarshal(e.Node, &h.node), proto.Unmarshal(e.Pod, &h.pod)); err != nil {
		return fmt.Errorf("reading what to answer: %w", err)
	}
	cfg := ratls.ServerConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }, func(tls.ConnectionState) error { return nil })
	cfg.NextProtos, cfg.ClientAuth = []string{"h2"}, tls.RequestClientCert
	mux := http.NewServeMux()
	mux.Handle(api.NewAttestationHandler(h, connect.WithCompression("gzip", nil, nil))) // as the service
	srv := &http.Server{Handler: mux, TLSConfig: cfg, ReadHeaderTimeout: dialTimeout, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type echo struct{ node, pod api.EnrolResponse }

func (e *echo) Challenge(context.Context, *api.ChallengeRequest) (*api.ChallengeResponse, error) {
	nonce := make([]byte, api.NonceSize)
	rand.Read(nonce)
	return &api.ChallengeResponse{Nonce: nonce, Expires: timestamppb.Now()}, nil
}

func (e *echo) Enrol(_ context.Context, req *api.EnrolRequest) (*api.EnrolResponse, error) {
	if req.GetPod() != nil {
		return &e.pod, nil
	}
	return &e.node, nil
}

func (e *echo) Renew(ctx context.Context, req *api.EnrolRequest) (*api.EnrolResponse, error) {
	return e.Enrol(ctx, req)
}
