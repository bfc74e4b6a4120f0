package fault_test

import (
	"slices"
	"testing"

	"github.com/telexec/telexec/internal/fault"
)

func TestNearest(t *testing.T) {
	known := []string{"grpc_addr", "http_addr", "data_dir", "web1", "web2", "web3", "web4", "db1.example.com", "x"}
	for _, c := range []struct {
		name string
		want []string
	}{
		{"grcp_addr", []string{"grpc_addr"}}, // neighbours swapped
		{"grpcaddr", []string{"grpc_addr"}},
		{"DATA_DIR", []string{"data_dir"}},
		{"htp_adr", []string{"http_addr"}},
		{"web9", []string{"web1", "web2", "web3"}}, // at most three
		{"db1", []string{"db1.example.com"}},       // a part of the name
		{"y", nil},                                 // nothing in common
		{"", nil},
		{"something else", nil},
	} {
		if got := fault.Nearest(c.name, slices.Values(known)); !slices.Equal(got, c.want) {
			t.Errorf("Nearest(%q) = %q, want %q", c.name, got, c.want)
		}
	}
}
