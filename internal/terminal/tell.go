package terminal

import (
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/session"
)

// entry begins an audit entry about a session.
func entry(kind audit.Kind, by access.Caller, s *session.Session) audit.Entry {
	return audit.Entry{
		Time: time.Now(), Kind: kind,
		Principal: by.Name, Origin: string(by.Origin), Address: by.Address, Call: by.Call,
		Session: s.ID, Host: s.Spec.Host, Subject: s.Spec.Name,
	}
}

// ended tells of the end of a session.
func ended(s *session.Session) audit.Entry {
	en := audit.Entry{
		Time: s.EndTime, Kind: audit.SessionEnded, Principal: s.CreatedBy.Principal, Origin: string(s.CreatedBy.Origin),
		Session: s.ID, Host: s.Spec.Host, Subject: s.Spec.Name, ExitCode: s.Exit,
	}
	if s.End != nil {
		en.Reason, en.Detail = s.End.Reason, s.End.Message
	}
	return en
}
