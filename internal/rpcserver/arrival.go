package rpcserver

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
)

// Metadata by which a client tells how its user came. Where a call comes over a
// network, only some origins are believed and nothing else is: see arrival.
const (
	originHeader  = "telexec-origin"
	addressHeader = "telexec-address"    // IP address of the gateway's client
	clientHeader  = "telexec-client-bin" // name in the certificate of the gateway's client
)

// memoryNetwork is the network of the in-memory listener. Only this process can
// be at the other end.
const memoryNetwork = "bufconn"

// arrival tells how a call has come: through which door, from where, and the name
// of the verified client certificate, if any.
//
// What comes over a network is believed about its origin where it is one of our
// own clients that run for somebody: cli and mcp. It can be a lie, but not one
// that lets the caller do more than as grpc, unless a rule trusts these words. The
// rest is the gateway's to tell.
func arrival(ctx context.Context) (origin command.Origin, address, client string) {
	origin = command.OriginGRPC
	said := command.Origin(first(ctx, originHeader))
	if said == command.OriginCLI || said == command.OriginMCP {
		origin = said
	}
	from, ok := peer.FromContext(ctx)
	if !ok {
		return origin, "", ""
	}
	switch proof := from.AuthInfo.(type) {
	case inMemory:
		if said == command.OriginREST || said == command.OriginWebSocket || said == command.OriginWeb {
			origin = said
		}
		return origin, first(ctx, addressHeader), first(ctx, clientHeader)
	case credentials.TLSInfo:
		if chains := proof.State.VerifiedChains; len(chains) > 0 {
			client = access.ClientName(chains[0][0])
		}
	}
	return origin, ipOf(from.Addr), client
}

// ipOf gives the IP address of a peer; empty where it has none.
func ipOf(addr net.Addr) string {
	if at, err := netip.ParseAddrPort(addr.String()); err == nil {
		return at.Addr().Unmap().String()
	}
	return ""
}

// transport guards new connections: those of the in-memory listener stay as they
// are, all others get TLS where it is configured.
type transport struct {
	credentials.TransportCredentials // of all others
}

// newTransport takes the server's TLS configuration; nil: no TLS.
func newTransport(config *tls.Config) transport {
	if config == nil {
		return transport{insecure.NewCredentials()}
	}
	return transport{credentials.NewTLS(config)} // adds h2 to the protocols where it is missing
}

// ServerHandshake is of credentials.TransportCredentials.
func (t transport) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn.LocalAddr().Network() == memoryNetwork {
		return conn, inMemory{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
	}
	return t.TransportCredentials.ServerHandshake(conn)
}

// Clone is of credentials.TransportCredentials.
func (t transport) Clone() credentials.TransportCredentials {
	return transport{t.TransportCredentials.Clone()}
}

// inMemory marks the connections of the in-memory listener.
type inMemory struct{ credentials.CommonAuthInfo }

// AuthType is of credentials.AuthInfo.
func (inMemory) AuthType() string { return "memory" }
