package build

import (
	"context"
	"errors"
)

// Credentials are for a registry.
type Credentials struct{ Host, User, Password string }

// Login asks a registry whether it takes credentials. What a user can mend is a *diag.Error.
func Login(ctx context.Context, env Env, r Registry, who Credentials) (err error) {
	b := &builder{life: ctx, env: env, req: Request{Registry: r}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.openClient(); err != nil {
		return err
	}
	return b.client.Login(ctx, who.Host, who.User, who.Password)
}
