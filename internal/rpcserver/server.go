// Package rpcserver is the gRPC door: it makes the server, and puts the same
// steps around every call, unary or stream, before its message is taken.
//
//	header ─▶ request id ─▶ error mapping ─▶ log, metrics ─▶ recovery ─▶
//	          arrival ─▶ refusals ─▶ authentication ─▶ end of credentials ─▶
//	          rate limits ─▶ handler ─▶ message ─▶ validation ─▶ …
//
// Inside the error mapping a failure is a fault with its cause; outside it is a
// gRPC status with google.rpc.ErrorInfo and the details a caller can act on
// (errors.go has the one table). Handlers therefore know neither codes nor
// tokens nor the rules of the proto: a request that reaches them is valid, and
// access.FromContext says who calls, through which door and from where. Whether
// the caller may is for the handler to decide; where the answer is no, or the
// call was refused on the way, the audit is told before the caller.
//
// A stranger therefore costs a header: nobody's message is read before it is known
// who sends it (stream.go). What answers without credentials, health, is bounded
// for each address, apart from what callers there may do.
//
// The other doors come through here as well: the gateway dials this server over
// an in-memory listener, so nothing is guarded in one place only. What the
// gateway tells of its clients in metadata is believed from that listener alone
// (arrival.go).
package rpcserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
)

// Limits of the door.
const (
	// MaxMessage is the largest request in bytes.
	MaxMessage = 4 << 20
	// maxReceived is how many bytes gRPC receives: above MaxMessage, so that of most
	// that is too long we can say so ourselves.
	maxReceived = MaxMessage + 1<<20
	// maxStreams is how many calls one connection from a network may have open at
	// once: as many as a principal may watch, unless it is configured otherwise.
	maxStreams = 1000
	// maxMemoryStreams is the same for the gateway, whose clients share connections.
	maxMemoryStreams = 10_000
	// maxHeader is the largest header of a call in bytes; a JWT of 16 KiB has room.
	maxHeader = 64 << 10
	// streamWindow is how many bytes of a message a client may send before somebody
	// wants it, and connWindow on all streams of a connection: fixed, since gRPC's
	// way of finding better ones lets a client choose.
	streamWindow, connWindow = 64 << 10, 1 << 20
	// maxIdle is how long a connection without a call is kept.
	maxIdle = 15 * time.Minute
	// handshakeTimeout is how long a new connection may take until it speaks.
	handshakeTimeout = 15 * time.Second
)

// Meter takes the numbers of every call.
type Meter interface {
	CallStarted()
	Call(method, code string, took time.Duration)
}

// Options is what a server needs. All fields but those marked must be set.
type Options struct {
	Authenticator access.Authenticator
	Limiter       Limiter
	Revocations   Revocations
	Refusals      Refusals
	Logger        *slog.Logger
	Meter         Meter
	// TLS is for all connections but those of the in-memory listener, so listeners
	// are given as they are; nil: no TLS.
	TLS *tls.Config
	// DrainTimeout is how long a drain waits for calls that are under way.
	DrainTimeout time.Duration
}

// Server is a gRPC server with health, reflection and all steps in place.
type Server struct {
	network *grpc.Server    // for listeners on a network
	memory  *grpc.Server    // for the in-memory listener
	methods map[string]bool // full names of those there are; not changed once it runs
	health  *health.Server
	drain   time.Duration
}

// New makes a server. It compiles the rules of the API, which takes some
// 10 ms. Until SetServing, health says NOT_SERVING.
func New(o Options) (*Server, error) {
	validator, err := newValidator()
	if err != nil {
		return nil, err
	}
	steps := chain{
		withRequestID,
		mapErrors,
		observe(o.Logger, o.Meter),
		recoverPanics(o.Logger),
		noteArrival,
		tellRefusals(o.Refusals),
		authenticate(o.Authenticator, o.Limiter),
		whileValid(o.Revocations),
		limitRate(o.Limiter),
		validate(validator),
	}
	s := &Server{methods: make(map[string]bool), health: health.NewServer(), drain: o.DrainTimeout}
	both := []grpc.ServerOption{
		grpc.Creds(newTransport(o.TLS)),
		grpc.StreamInterceptor(steps.interceptor(s.methods)),
		grpc.UnknownServiceHandler(unknownMethod),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(maxReceived),
		grpc.ConnectionTimeout(handshakeTimeout),
	}
	s.memory = grpc.NewServer(append(both, grpc.MaxConcurrentStreams(maxMemoryStreams))...)
	s.network = grpc.NewServer(append(both,
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:              30 * time.Second, // a vanished client is noticed within 50 s …
			Timeout:           20 * time.Second,
			MaxConnectionIdle: maxIdle,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             10 * time.Second, // … and clients may ask as often
			PermitWithoutStream: true,
		}),
	)...)
	s.SetServing(false)
	healthpb.RegisterHealthServer(s, s.health)
	reflection.Register(s) // v1 and v1alpha
	return s, nil
}

// RegisterService is of grpc.ServiceRegistrar. It is called before Run.
func (s *Server) RegisterService(service *grpc.ServiceDesc, implementation any) {
	streams := asStreams(service)
	for _, m := range streams.Streams {
		s.methods["/"+service.ServiceName+"/"+m.StreamName] = true
	}
	s.network.RegisterService(streams, implementation)
	s.memory.RegisterService(streams, implementation)
}

// GetServiceInfo is of reflection.ServiceInfoProvider.
func (s *Server) GetServiceInfo() map[string]grpc.ServiceInfo { return s.network.GetServiceInfo() }

// SetServing sets what health says, for the server and for all its services.
func (s *Server) SetServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
	for name := range s.GetServiceInfo() {
		s.health.SetServingStatus(name, state)
	}
}

// Run serves all listeners until ctx ends, and then drains: health says
// NOT_SERVING, no new call is taken, those under way may finish within the drain
// timeout, the rest is cut off. It closes the listeners and returns nil after a
// drain, else why a listener failed.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	failed := make(chan error, len(listeners)) // one from each Serve; never blocks
	for _, l := range listeners {
		go func() {
			server := s.network
			if l.Addr().Network() == memoryNetwork {
				server = s.memory
			}
			err := server.Serve(l)
			if errors.Is(err, grpc.ErrServerStopped) { // stopped before it began; it has closed l
				err = nil
			}
			failed <- err
		}()
	}
	left := len(listeners)
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		left--
	}
	s.shutDown()
	for range left {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		return fmt.Errorf("gRPC server: %w", err)
	}
	return nil
}

// shutDown ends all calls, gently as long as the drain timeout allows.
func (s *Server) shutDown() {
	s.health.Shutdown() // also ends health's watches
	gentle := make(chan struct{})
	go func() {
		defer close(gentle)
		var both sync.WaitGroup
		both.Go(s.memory.GracefulStop)
		both.Go(s.network.GracefulStop)
		both.Wait()
	}()
	timeout := time.NewTimer(s.drain)
	defer timeout.Stop()
	select {
	case <-gentle:
	case <-timeout.C:
		s.network.Stop() // makes GracefulStop return
		s.memory.Stop()
		<-gentle
	}
}

// unknownMethod answers for services that are not there. As a handler it is
// behind all steps, so that even the absence of a method is told only to those
// with a token.
func unknownMethod(_ any, ss grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(ss)
	return fault.New(fault.Unsupported, fault.ReasonUnknownRoute, "there is no method %s", shorten(method, maxName)).
		WithHint("List the services by reflection: grpcurl -H \"authorization: Bearer TOKEN\" ADDR list")
}
