package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/registry"
)

// login is what "login" was told.
type login struct {
	user, password string
	stdin          bool
}

func (c *command) loginCommand() *cobra.Command {
	var l login
	cmd := &cobra.Command{
		Use: "login [REGISTRY]", Short: "Check credentials for a registry and keep them in docker's config.json", Args: atMostOne("registry"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.login(cmd.Context(), l, first(args)) },
	}
	cmd.Flags().StringVarP(&l.user, "username", "u", "", "")
	cmd.Flags().StringVarP(&l.password, "password", "p", "", "")
	cmd.Flags().BoolVar(&l.stdin, "password-stdin", false, "")
	c.some(cmd, registryFlagNames())
	usageOf(cmd, registryFlagNames(),
		flag{name: "username", short: "u", kind: stringKind, help: "the user"},
		flag{name: "password", short: "p", kind: stringKind, help: "the password or token; every process of this machine can see it there, so better use:"},
		flag{name: "password-stdin", kind: boolKind, help: "read the password from standard input"})
	return cmd
}

func (c *command) logoutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "logout [REGISTRY]", Short: "Remove credentials for a registry from docker's config.json", Args: atMostOne("registry"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.logout(cmd.Context(), first(args)) },
	}
	c.some(cmd, []string{"verbosity", "log-format", "log-timestamp"})
	usageOf(cmd, []string{"verbosity", "log-format", "log-timestamp"})
	return cmd
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// maxPassword bounds what is read from standard input; tokens of clouds have a few KiB.
const maxPassword = 64 << 10

// login checks credentials and stores them.
func (c *command) login(ctx context.Context, l login, host string) error {
	if err := c.openLog(); err != nil {
		return err
	}
	switch {
	case l.user == "":
		return usageError{&diag.Error{What: "the user is missing", Hint: "Give it with --username."}}
	case l.stdin && l.password != "":
		return usageError{&diag.Error{What: "the password is given twice", Hint: "Leave out --password."}}
	case l.stdin:
		data, err := io.ReadAll(io.LimitReader(c.env.Stdin, maxPassword+1))
		if err != nil || len(data) > maxPassword {
			return &diag.Error{What: "read the password from standard input", Cause: err, Hint: fmt.Sprintf("A password has at most %d bytes.", maxPassword)}
		}
		l.password = string(bytes.TrimRight(data, "\r\n"))
	case l.password != "":
		c.ui.Emit(event.Warning{Message: "every process of this machine can see --password; use --password-stdin"})
	}
	if l.password == "" {
		return usageError{&diag.Error{What: "the password is missing", Hint: "Pipe it in: echo \"$PASSWORD\" | hako login --username USER --password-stdin REGISTRY"}}
	}
	r := c.registry(c.vs)
	if err := build.Login(ctx, c.buildEnv(c.ui), r, build.Credentials{Host: host, User: l.user, Password: l.password}); err != nil {
		return err
	}
	where, err := registry.StoreCredentials(ctx, r.DockerConfigDirs[0], host, l.user, l.password)
	if err != nil {
		return err
	}
	c.ui.Emit(event.Info{Message: "the credentials for " + registry.ServerHost(host) + " are in " + where})
	_, err = fmt.Fprintln(c.env.Stdout, "Login Succeeded")
	return err
}

// logout removes credentials.
func (c *command) logout(ctx context.Context, host string) error {
	if err := c.openLog(); err != nil {
		return err
	}
	where, err := registry.RemoveCredentials(ctx, c.registry(c.vs).DockerConfigDirs[0], host)
	if err != nil {
		return err
	}
	message := "there were no credentials for " + registry.ServerHost(host)
	if where != "" {
		message = "removed the credentials for " + registry.ServerHost(host) + " from " + where
	}
	c.ui.Emit(event.Info{Message: message})
	return nil
}
