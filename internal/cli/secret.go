package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"hako/internal/build"
	"hako/internal/diag"
)

// mounts reads what steps can mount, and the network they reach.
func (c *command) mounts(vs *values, req *build.Request) error {
	if n := vs.str("network"); n != "default" {
		req.Network = n
	}
	var secretErr, agentErr error
	req.Secrets, secretErr = c.secrets(vs.list("secret"))
	req.Agents, agentErr = c.agents(vs.list("ssh"))
	return errors.Join(secretErr, agentErr)
}

// secrets reads "id=ID[,src=FILE][,env=NAME][,type=file|env]" as buildx does. Messages name no values:
// somebody may have put the secret itself there.
func (c *command) secrets(given []string) ([]build.Secret, error) {
	var out []build.Secret
	for _, g := range given {
		s, err := c.secret(g)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (c *command) secret(given string) (build.Secret, error) {
	fields, err := csv.NewReader(strings.NewReader(given)).Read()
	if err != nil {
		return build.Secret{}, secretError("it cannot be split at its commas")
	}
	values := map[string]string{}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		switch key = strings.ToLower(strings.TrimSpace(key)); {
		case !ok:
			return build.Secret{}, secretError("a field is not KEY=VALUE")
		case key == "source":
			key = "src"
		}
		switch key {
		case "id", "src", "env", "type":
			values[key] = value
		default:
			near, _ := diag.Nearest(key, []string{"id", "src", "source", "env", "type"})
			return build.Secret{}, secretError(fmt.Sprintf("unknown key %q", clipWord(key)), near)
		}
	}
	id, file, variable := values["id"], values["src"], values["env"]
	switch kind := values["type"]; {
	case id == "":
		return build.Secret{}, secretError("the id is missing")
	case kind != "" && kind != "file" && kind != "env":
		return build.Secret{}, secretError("the type is neither file nor env")
	case kind == "env" && variable == "":
		variable, file = file, ""
	}
	if variable == "" && file == "" {
		if _, ok := c.vars[id]; ok {
			variable = id
		} else {
			file = id
		}
	}
	if variable != "" {
		return build.Secret{ID: id, Value: build.SecretValue(c.getenv(variable))}, nil
	}
	return build.Secret{ID: id, Path: c.absolute(file)}, nil
}

func secretError(why string, near ...string) error {
	hint := "Write --secret id=ID,src=FILE or --secret id=ID,env=VARIABLE."
	if len(near) > 0 && near[0] != "" {
		hint = fmt.Sprintf("Did you mean %s?", near[0])
	}
	return &diag.Error{What: "--secret: " + why, Hint: hint}
}

// clipWord bounds a word for a message.
func clipWord(s string) string {
	const limit = 20
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}

// absolute is a path relative to the working directory.
func (c *command) absolute(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.env.Cwd, p)
}

// agents reads "ID[=SOCKET|KEY[,KEY…][,raw=true]]" as buildx does.
func (c *command) agents(given []string) ([]build.Agent, error) {
	var out []build.Agent
	for _, g := range given {
		id, list, _ := strings.Cut(g, "=")
		a := build.Agent{ID: id}
		if a.ID == "" {
			a.ID = "default"
		}
		for _, p := range strings.Split(list, ",") {
			if value, ok := strings.CutPrefix(p, "raw="); ok {
				raw, err := strconv.ParseBool(value)
				if err != nil {
					return nil, &diag.Error{What: fmt.Sprintf("--ssh %s: raw=%s is neither true nor false", a.ID, value), Hint: "Write raw=true, or leave it out."}
				}
				a.Raw = raw
			} else if p != "" {
				a.Paths = append(a.Paths, c.absolute(p))
			}
		}
		if sock := c.getenv("SSH_AUTH_SOCK"); len(a.Paths) == 0 && sock != "" {
			a.Paths = []string{sock}
		}
		out = append(out, a)
	}
	return out, nil
}
