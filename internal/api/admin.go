package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
)

// Info is what does not change about a server while it runs.
type Info struct {
	Version, Commit, GoVersion string
	Node                       string
	Store                      string // "sqlite"
	Started                    time.Time
	Limits                     Limits
}

// Limits are the limits that a caller can run into.
type Limits struct {
	MaxCommands, MaxCommandsPerHost, MaxQueued int
	RetainedOutput                             int64 // bytes of each stream
	FullOutput, History                        time.Duration
}

// Admin answers for AdminService.
type Admin struct {
	telexecv1.UnsafeAdminServiceServer

	info   Info
	load   Load
	tokens Tokens
	log    AuditLog
	rights *access.Rights
}

// NewAdmin makes the service.
func NewAdmin(i Info, l Load, t Tokens, log AuditLog, r *access.Rights) *Admin {
	return &Admin{info: i, load: l, tokens: t, log: log, rights: r}
}

// GetServerInfo is of AdminService.
func (a *Admin) GetServerInfo(ctx context.Context, _ *telexecv1.GetServerInfoRequest) (*telexecv1.GetServerInfoResponse, error) {
	by := caller(ctx)
	i, stats := a.info, a.load.Stats()
	return &telexecv1.GetServerInfoResponse{
		Version:         i.Version,
		Commit:          i.Commit,
		GoVersion:       i.GoVersion,
		Node:            i.Node,
		Store:           i.Store,
		StartTime:       timeToProto(i.Started),
		Uptime:          durationpb.New(time.Since(i.Started)),
		RunningCommands: int32(stats.Running),
		QueuedCommands:  int32(stats.Queued),
		Watchers:        int32(stats.Watchers),
		Draining:        stats.Draining,
		Principal:       by.Name,
		Roles:           by.RoleNames(),

		CredentialsExpireTime: timeToProto(by.Expiry),
		Limits: &telexecv1.Limits{
			MaxCommands:         int32(i.Limits.MaxCommands),
			MaxCommandsPerHost:  int32(i.Limits.MaxCommandsPerHost),
			MaxQueued:           int32(i.Limits.MaxQueued),
			RetainedOutputBytes: i.Limits.RetainedOutput,
			FullOutputRetention: durationpb.New(i.Limits.FullOutput),
			HistoryRetention:    durationpb.New(i.Limits.History),
		},
	}, nil
}
