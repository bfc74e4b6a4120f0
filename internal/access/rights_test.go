package access_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
)

func rights(t *testing.T, wider ...access.Wider) *access.Rights {
	t.Helper()
	r, err := access.NewRights(wider)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func commandOf(owner, host string, labels ...string) access.Thing {
	t := access.Thing{What: "command", ID: "01J", Owner: owner, Host: host, Labels: map[string]string{}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		t.Labels[k] = v
	}
	return t
}

// What each role may do with its own things, and with those of others.
func TestRolesAndOwnership(t *testing.T) {
	const mine, others, lacks = "mine", "others'", "" // as far as it reaches
	for _, r := range []*access.Rights{nil, rights(t)} {
		for role, reach := range map[access.Role]map[access.Action]string{
			access.RoleViewer:   {access.Look: mine},
			access.RoleOperator: {access.Look: mine, access.Start: others, access.Act: mine},
			access.RoleApprover: {access.Look: mine},
			access.RoleAdmin:    {access.Look: others, access.Start: others, access.Act: others, access.Administer: others},
			"":                  {},
		} {
			ann := who("ann", role)
			for a := access.Look; a <= access.Administer; a++ {
				own, other := r.May(ann, a, commandOf("ann", "web1")), r.May(ann, a, commandOf("bob", "web1"))
				switch reach[a] {
				case lacks:
					refused(t, own, fault.PermissionDenied, fault.ReasonRoleMissing)
					if e := refused(t, other, fault.PermissionDenied, fault.ReasonRoleMissing); e.Error() != own.Error() {
						t.Errorf("%s, %v: what is missing depends on the thing: %v, %v", role, a, own, other)
					}
				case mine:
					if own != nil {
						t.Errorf("%s, %v: %v", role, a, own)
					}
					refused(t, other, fault.PermissionDenied, fault.ReasonAccessDenied)
				case others:
					if own != nil || other != nil {
						t.Errorf("%s, %v: %v, %v", role, a, own, other)
					}
				}
			}
		}
	}
	e := refused(t, rights(t).May(who("ann", access.RoleViewer), access.Act, access.Thing{}), fault.PermissionDenied, fault.ReasonRoleMissing)
	if e.Metadata["role"] != "operator" || !strings.Contains(e.Message, "operator") || !strings.Contains(e.Message, "viewer") {
		t.Errorf("%v %v", e, e.Metadata)
	}
}

// A thing of somebody else, one that is not there and Hidden are told alike.
func TestNobodyLearnsWhatIsThere(t *testing.T) {
	r, ann := rights(t), who("ann", access.RoleOperator)
	want := fault.From(access.Hidden("command", "01J"))
	for _, thing := range []access.Thing{
		commandOf("bob", "web1", "env=prod"), {What: "command", ID: "01J"}, {What: "command", ID: "01J", Host: "web1"},
	} {
		if got := fault.From(r.May(ann, access.Act, thing)); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: %#v, want %#v", thing, got, want)
		}
	}
	if want.Metadata["command_id"] != "01J" || want.Kind != fault.PermissionDenied || want.Hint == "" {
		t.Errorf("%+v", want)
	}
	// Nor does a caller without a name own what has no owner.
	refused(t, r.May(who("", access.RoleOperator), access.Look, access.Thing{What: "command", ID: "01J"}), fault.PermissionDenied, fault.ReasonAccessDenied)
	// Who lacks the role is told so in both cases; whoever may do it to all, that
	// it is not there.
	for _, thing := range []access.Thing{commandOf("bob", "web1"), {What: "command", ID: "01J"}} {
		refused(t, r.May(who("ann", access.RoleViewer), access.Act, thing), fault.PermissionDenied, fault.ReasonRoleMissing)
	}
	all := rights(t, access.Wider{Roles: []access.Role{access.RoleViewer}}, access.Wider{Roles: []access.Role{access.RoleOperator}, Hosts: []string{"*"}})
	for action, want := range map[access.Action]string{access.Look: "", access.Act: fault.ReasonAccessDenied} {
		if got := fault.ReasonOf(all.May(who("ann", access.RoleViewer, access.RoleOperator), action, access.Thing{What: "command", ID: "01J"})); got != want {
			t.Errorf("%v of what is not there: %q, want %q", action, got, want)
		}
	}
	if err := r.May(who("root", access.RoleAdmin), access.Look, access.Thing{What: "command", ID: "01J"}); err != nil {
		t.Errorf("an administrator may be told that it is not there: %v", err)
	}
}

func TestWiderRights(t *testing.T) {
	operator, viewer, approver, admin := access.RoleOperator, access.RoleViewer, access.RoleApprover, access.RoleAdmin
	staging := map[string]string{"env": "staging"}
	for name, c := range map[string]struct {
		wider  access.Wider
		caller []access.Role
		action access.Action
		host   string
		labels []string
		want   bool
	}{
		"host and label":       {access.Wider{Roles: []access.Role{operator}, Hosts: []string{"web*"}, Labels: staging}, []access.Role{operator}, access.Act, "web1", []string{"env=staging", "x=y"}, true},
		"looks as well":        {access.Wider{Roles: []access.Role{operator}, Hosts: []string{"web*"}}, []access.Role{operator}, access.Look, "web1", nil, true},
		"one of several globs": {access.Wider{Roles: []access.Role{operator}, Hosts: []string{"db?", "web*"}}, []access.Role{operator}, access.Act, "web1", nil, true},
		"another host":         {access.Wider{Roles: []access.Role{operator}, Hosts: []string{"web*"}}, []access.Role{operator}, access.Act, "db1", nil, false},
		"another label":        {access.Wider{Roles: []access.Role{operator}, Hosts: []string{"web*"}, Labels: staging}, []access.Role{operator}, access.Act, "web1", []string{"env=prod"}, false},
		"no label":             {access.Wider{Roles: []access.Role{operator}, Labels: map[string]string{"env": ""}}, []access.Role{operator}, access.Act, "web1", nil, false},
		"label alone":          {access.Wider{Roles: []access.Role{operator}, Labels: staging}, []access.Role{operator}, access.Act, "db1", []string{"env=staging"}, true},
		"no host":              {access.Wider{Roles: []access.Role{operator}, Hosts: []string{"*"}}, []access.Role{operator}, access.Act, "", nil, false},
		"everywhere":           {access.Wider{Roles: []access.Role{operator}}, []access.Role{operator}, access.Act, "any", nil, true},
		"another role":         {access.Wider{Roles: []access.Role{approver}, Hosts: []string{"*"}}, []access.Role{operator}, access.Look, "web1", nil, false},
		"a viewer looks":       {access.Wider{Roles: []access.Role{viewer}, Hosts: []string{"*"}}, []access.Role{viewer}, access.Look, "web1", nil, true},
		"for looking alone":    {access.Wider{Roles: []access.Role{viewer}, Hosts: []string{"*"}}, []access.Role{viewer, operator}, access.Act, "web1", nil, false},
		"approvers only look":  {access.Wider{Roles: []access.Role{approver}, Hosts: []string{"*"}}, []access.Role{approver, operator}, access.Act, "web1", nil, false},
		"for administrators":   {access.Wider{Roles: []access.Role{admin}, Hosts: []string{"*"}}, []access.Role{operator}, access.Act, "web1", nil, false},
	} {
		err := rights(t, c.wider).May(who("ann", c.caller...), c.action, commandOf("bob", c.host, c.labels...))
		if (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			refused(t, err, fault.PermissionDenied, fault.ReasonAccessDenied)
		}
	}
}

func TestWhatIsListed(t *testing.T) {
	hosts := map[string]map[string]string{"web2": nil, "web1": {"env": "staging"}, "db1": {"env": "staging"}, "db2": nil}
	r := rights(t,
		access.Wider{Roles: []access.Role{access.RoleOperator}, Hosts: []string{"web*"}},
		access.Wider{Roles: []access.Role{access.RoleViewer, access.RoleOperator}, Labels: map[string]string{"env": "staging"}},
		access.Wider{Roles: []access.Role{access.RoleApprover}},
	)
	for role, want := range map[access.Role][]string{
		access.RoleOperator: {"db1", "web1", "web2"}, access.RoleViewer: {"db1", "web1"}, access.RoleApprover: {"db1", "db2", "web1", "web2"}, "": nil,
	} {
		ann := who("ann", role)
		if got := r.Hosts(ann, maps.All(hosts)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", role, got, want)
		}
		if all := r.SeesAll(ann); all != (role == access.RoleApprover) {
			t.Errorf("%s sees all: %v", role, all)
		}
	}
	var none *access.Rights
	if none.Hosts(who("ann", access.RoleOperator), maps.All(hosts)) != nil || none.SeesAll(who("ann", access.RoleOperator)) || !none.SeesAll(who("root", access.RoleAdmin)) {
		t.Error("without anything wider")
	}
}

func TestUnfitWiderRights(t *testing.T) {
	for says, w := range map[string]access.Wider{
		"names no roles":   {Hosts: []string{"*"}},
		"there is no role": {Roles: []access.Role{"root"}},
		`"[" is not`:       {Roles: access.Roles, Hosts: []string{"web*", "["}},
		`"" is not`:        {Roles: access.Roles, Hosts: []string{""}},
	} {
		_, err := access.NewRights([]access.Wider{{Roles: access.Roles}, w})
		if e := refused(t, err, fault.Invalid, fault.ReasonBadConfig); !strings.Contains(e.Message, says) || !strings.Contains(e.Message, "entry 2") {
			t.Errorf("%q, want %q", e.Message, says)
		}
	}
}

// Whoever may type is said by roles, and at whose terminals by the right to act.
func TestWhoMayType(t *testing.T) {
	operator, viewer, approver, admin := access.RoleOperator, access.RoleViewer, access.RoleApprover, access.RoleAdmin
	sessionOf := func(owner string) access.Thing {
		return access.Thing{What: "session", ID: "01J", Owner: owner, Host: "web1"}
	}
	wider := access.Wider{Roles: []access.Role{operator}, Hosts: []string{"web*"}}
	for name, c := range map[string]struct {
		typing []access.Role
		wider  []access.Wider
		caller []access.Role
		thing  access.Thing
		want   string // reason; empty: may
	}{
		"an operator, at its own":              {nil, nil, []access.Role{operator}, sessionOf("ann"), ""},
		"an operator, at somebody's":           {nil, nil, []access.Role{operator}, sessionOf("bob"), fault.ReasonAccessDenied},
		"an operator, at somebody's, wider":    {nil, []access.Wider{wider}, []access.Role{operator}, sessionOf("bob"), ""},
		"an operator, where there is none":     {nil, nil, []access.Role{operator}, access.Thing{What: "session", ID: "01J"}, fault.ReasonAccessDenied},
		"a viewer":                             {nil, nil, []access.Role{viewer}, sessionOf("ann"), fault.ReasonTypingNotAllowed},
		"an administrator, at somebody's":      {nil, nil, []access.Role{admin}, sessionOf("bob"), ""},
		"nobody":                               {nil, nil, nil, sessionOf("ann"), fault.ReasonTypingNotAllowed},
		"administrators alone: an operator":    {[]access.Role{admin}, nil, []access.Role{operator}, sessionOf("ann"), fault.ReasonTypingNotAllowed},
		"administrators alone: an operator, w": {[]access.Role{admin}, []access.Wider{wider}, []access.Role{operator}, sessionOf("bob"), fault.ReasonTypingNotAllowed},
		"administrators alone: one of them":    {[]access.Role{admin}, nil, []access.Role{admin}, sessionOf("bob"), ""},
		"approvers: an operator":               {[]access.Role{approver}, nil, []access.Role{operator}, sessionOf("ann"), fault.ReasonTypingNotAllowed},
		"approvers: who is both":               {[]access.Role{approver}, nil, []access.Role{operator, approver}, sessionOf("ann"), ""},
		"approvers: who may not act":           {[]access.Role{approver}, nil, []access.Role{approver}, sessionOf("ann"), fault.ReasonRoleMissing},
		"both named":                           {[]access.Role{operator, admin}, nil, []access.Role{operator}, sessionOf("ann"), ""},
	} {
		r, err := access.NewRights(c.wider, c.typing...)
		if err != nil {
			t.Fatal(err)
		}
		all := []*access.Rights{r}
		if c.typing == nil && c.wider == nil {
			all = append(all, nil)
		}
		for _, r := range all {
			err := r.MayType(who("ann", c.caller...), c.thing)
			if got := fault.ReasonOf(err); got != c.want {
				t.Errorf("%s: %q (%v), want %q", name, got, err, c.want)
			}
			if err != nil {
				refused(t, err, fault.PermissionDenied, c.want)
			}
		}
	}
	// Who lacks the role learns nothing of what is there, and is told which one it is.
	r, err := access.NewRights(nil, admin)
	if err != nil {
		t.Fatal(err)
	}
	one := refused(t, r.MayType(who("ann", operator), sessionOf("ann")), fault.PermissionDenied, fault.ReasonTypingNotAllowed)
	other := refused(t, r.MayType(who("ann", operator), access.Thing{What: "session", ID: "none"}), fault.PermissionDenied, fault.ReasonTypingNotAllowed)
	if !reflect.DeepEqual(one, other) || one.Metadata["roles"] != "admin" || !strings.Contains(one.Message, "has only: operator") {
		t.Errorf("%v %v, and %v", one, one.Metadata, other)
	}
	// It holds at once for whoever is asked about next.
	r.SetTyping(operator)
	if err := r.MayType(who("ann", operator), sessionOf("ann")); err != nil {
		t.Error(err)
	}
	r.SetTyping(admin)
	refused(t, r.MayType(who("ann", operator), sessionOf("ann")), fault.PermissionDenied, fault.ReasonTypingNotAllowed)
	r.SetTyping()
	if err := r.MayType(who("ann", operator), sessionOf("ann")); err != nil {
		t.Error(err)
	}
	if _, err := access.NewRights(nil, operator, "king"); err == nil {
		t.Error("a role that there is not may type")
	} else if e := refused(t, err, fault.Invalid, fault.ReasonBadConfig); !strings.Contains(e.Message, `sessions.typing_roles: there is no role "king"`) {
		t.Error(e.Message)
	}
	if e := fault.From(access.Hidden("session", "build")); e.Metadata["session_id"] != "build" || !strings.Contains(e.Message, `session "build"`) {
		t.Errorf("%v %v", e, e.Metadata)
	}
}
