//go:build !linux

package bulk

import (
	"errors"
	"os"
)

func openDirect(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func datasync(f *os.File) error { return f.Sync() }

// punch is not to be had in a portable way.
func punch(*os.File, int64) error { return errors.ErrUnsupported }
