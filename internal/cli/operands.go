package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hako/internal/diag"
)

// noOperands refuses words after a command that takes none: misspelt commands, mostly.
func noOperands(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasAvailableSubCommands():
		return unknownCommand(cmd, args[0])
	}
	return usageError{fmt.Errorf("%s takes no arguments: %s", cmd.CommandPath(), strings.Join(args, " "))}
}

// unknownCommand says that parent has no command of that name, and which one is meant.
func unknownCommand(parent *cobra.Command, name string) error {
	err := &diag.Error{What: fmt.Sprintf("unknown command %q for %q", name, parent.CommandPath())}
	var names []string
	for _, sub := range parent.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			names = append(names, sub.Name())
		}
	}
	if near, ok := diag.Nearest(name, names); ok {
		err.Hint = "Did you mean " + parent.CommandPath() + " " + near + "?"
	}
	return usageError{err}
}

// someOperands asks for at least one operand; ask says for which.
func someOperands(ask string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{errors.New(ask)}
		}
		return nil
	}
}

// atMostOne refuses a second operand; what is what they are.
func atMostOne(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usageError{fmt.Errorf("more than one %s: %s", what, strings.Join(args, " "))}
		}
		return nil
	}
}

// refuseUnknownTopics makes "help NAME" fail where there is no command of that name: cobra's own shows the help of another one.
func refuseUnknownTopics(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil || help == root {
		return
	}
	help.RunE = func(_ *cobra.Command, args []string) error {
		of, rest, err := root.Find(args)
		if err != nil {
			return usageError{err}
		}
		if len(rest) > 0 {
			return unknownCommand(of, rest[0])
		}
		of.InitDefaultHelpFlag()
		return of.Help()
	}
}
