// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// gather scrapes a server's metrics.
func gather(t *testing.T, s *Server) string {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(s.Collectors()...)
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	return rec.Body.String()
}

func TestGRPCInterop(t *testing.T) {
	w := newWorld(t)
	w.route(route.Config{Routes: []route.Route{to("web", route.H2C, "bank.example")}})
	ln := listen(t)
	srv := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(srv, interop.NewTestServer())
	go srv.Serve(ln)
	t.Cleanup(srv.Stop)
	w.addPod("d/web", policytest.Web, ln)
	conn, err := grpc.NewClient("passthrough:///bank.example",
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(w.certs.pool, "bank.example")),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", w.https.Addr().String())
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tc := testgrpc.NewTestServiceClient(conn)
	for name, do := range map[string]func(context.Context){
		"empty unary":      func(ctx context.Context) { interop.DoEmptyUnaryCall(ctx, tc) },
		"large unary":      func(ctx context.Context) { interop.DoLargeUnaryCall(ctx, tc) },
		"client streaming": func(ctx context.Context) { interop.DoClientStreaming(ctx, tc) },
		"server streaming": func(ctx context.Context) { interop.DoServerStreaming(ctx, tc) },
		"ping pong":        func(ctx context.Context) { interop.DoPingPong(ctx, tc) },
		"empty stream":     func(ctx context.Context) { interop.DoEmptyStream(ctx, tc) },
		"timeout":          func(ctx context.Context) { interop.DoTimeoutOnSleepingServer(ctx, tc) },
		"cancel early":     func(ctx context.Context) { interop.DoCancelAfterBegin(ctx, tc) },
		"cancel late":      func(ctx context.Context) { interop.DoCancelAfterFirstResponse(ctx, tc) },
		"custom metadata":  func(ctx context.Context) { interop.DoCustomMetadata(ctx, tc) },
		"status, message":  func(ctx context.Context) { interop.DoStatusCodeAndMessage(ctx, tc) },
		"special message":  func(ctx context.Context) { interop.DoSpecialStatusMessage(ctx, tc) },
		"method unknown":   func(context.Context) { interop.DoUnimplementedMethod(t.Context(), conn) },
		"service unknown": func(ctx context.Context) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
		},
	} {
		t.Run(name, func(t *testing.T) { do(t.Context()) })
	}
}
