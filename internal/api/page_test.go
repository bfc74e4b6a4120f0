package api

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
)

func TestListPages(t *testing.T) {
	p, svc := newPlant()
	for i := range 5 {
		s := running()
		s.ID = fmt.Sprintf("%s%d", anID[:25], 9-i)
		p.commands = append(p.commands, s)
	}
	ctx := asAnn(t)
	req := &telexecv1.ListCommandsRequest{PageSize: 2, Host: "h"}
	var got []string
	for pages := 0; ; pages++ {
		page, err := svc.ListCommands(ctx, req)
		if err != nil || pages > 3 {
			t.Fatal(pages, err)
		}
		for _, c := range page.GetCommands() {
			got = append(got, c.GetId()[25:])
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
		if p.filter.Limit != 3 || p.filter.Host != "h" {
			t.Errorf("filter %+v", p.filter)
		}
		req.PageSize = 2
	}
	if strings.Join(got, "") != "98765" {
		t.Error(got)
	}
	first, err := svc.ListCommands(ctx, &telexecv1.ListCommandsRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := svc.ListCommands(ctx, &telexecv1.ListCommandsRequest{PageToken: first.GetNextPageToken(), Host: "other"}); fault.ReasonOf(err) != fault.ReasonBadPageToken {
		t.Errorf("token of another list: %v", err)
	}
	p.fail = errors.New("x")
	if _, err := svc.ListCommands(ctx, &telexecv1.ListCommandsRequest{}); err != p.fail || p.filter.Limit != 51 {
		t.Errorf("%v, limit %d", err, p.filter.Limit)
	}
}

func TestAPageIsNotTooLarge(t *testing.T) {
	p, svc := newPlant()
	for i := range 100 {
		s := running()
		s.ID = fmt.Sprintf("%s%02d", anID[:24], 99-i)
		s.Spec.Line = strings.Repeat("x", 120_000)
		p.commands = append(p.commands, s)
	}
	req, total := &telexecv1.ListCommandsRequest{PageSize: 1000}, 0
	for {
		page, err := svc.ListCommands(asAnn(t), req)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.GetCommands()); n == 0 || n > maxPageBytes/120_000 {
			t.Fatalf("a page of %d", n)
		}
		total += len(page.GetCommands())
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if total != 100 {
		t.Errorf("%d commands", total)
	}
}

func FuzzPageCursor(f *testing.F) {
	filter := &telexecv1.ListCommandsRequest{Host: "h"}
	good := pageToken(filter, anID)
	f.Add(good)
	f.Add("")
	f.Add(good[:len(good)-1])
	f.Add("AA==")
	f.Fuzz(func(t *testing.T, token string) {
		cursor, err := pageCursor(filter, token)
		if err == nil && token != "" && pageToken(filter, cursor) != token {
			t.Fatalf("%q is not what it should be for %q", token, cursor)
		}
		if err != nil && fault.ReasonOf(err) != fault.ReasonBadPageToken {
			t.Fatal(err)
		}
	})
}

func TestEveryChangeOfATokenIsSeen(t *testing.T) {
	filter := &telexecv1.ListCommandsRequest{Host: "h"}
	good := pageToken(filter, anID)
	if c, err := pageCursor(filter, good); err != nil || c != anID {
		t.Fatal(c, err)
	}
	for i := range len(good) {
		bad := []byte(good)
		if bad[i] = 'A'; good[i] == 'A' {
			bad[i] = 'B'
		}
		if _, err := pageCursor(filter, string(bad)); fault.ReasonOf(err) != fault.ReasonBadPageToken {
			t.Errorf("character %d can be changed", i)
		}
	}
	if _, err := pageCursor(&telexecv1.ListHostsRequest{}, good); err == nil {
		t.Error("a token of commands is good for hosts")
	}
}
