//go:build !linux && !darwin && !windows

package socket

import (
	"errors"
	"syscall"
)

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func isAddressInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
