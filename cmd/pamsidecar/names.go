package main

import (
	"github.com/spf13/cobra"

	"github.com/pamsidecar/pamsidecar/cache"
)

// oneName accepts exactly one valid name.
func oneName(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usagef(cmd, "which name?")
	case 1:
		return anyNames(cmd, args)
	default:
		return usagef(cmd, "one name at a time; put a name with spaces into quotes")
	}
}

// someNames accepts one or more valid names.
func someNames(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef(cmd, "which name?")
	}
	return anyNames(cmd, args)
}

// anyNames accepts any number of valid names.
func anyNames(cmd *cobra.Command, args []string) error {
	for _, name := range args {
		if err := cache.ValidName(name); err != nil {
			return usagef(cmd, "%q cannot be a name: %v", abbreviate(name), err)
		}
	}
	return nil
}
