package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/tools/txtar"
)

// gitEnv is an environment in which git does the same everywhere: no configuration of the machine, fixed names and times.
func gitEnv(home string) []string {
	at := fixedTime().Format(time.RFC3339)
	return []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=" + at,
		"GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@example.org", "GIT_COMMITTER_DATE=" + at,
	}
}

// needsGit says whether c cannot be built without the program git.
func (c *Case) needsGit() bool { return len(c.repositories) > 0 }

// WriteRepositories makes the git repositories of c below dir: NAME.git each.
func (c *Case) WriteRepositories(dir string) error {
	if !c.needsGit() {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make repositories: %w", err)
	}
	config := "[safe]\n\tdirectory = *\n[protocol \"file\"]\n\tallow = always\n[init]\n\tdefaultBranch = main\n[core]\n\tautocrlf = false\n"
	if err := os.WriteFile(filepath.Join(dir, ".gitconfig"), []byte(config), 0o644); err != nil {
		return fmt.Errorf("make repositories: %w", err)
	}
	for _, f := range c.repositories {
		r := &repository{root: dir, work: filepath.Join(dir, f.Name), bare: filepath.Join(dir, f.Name+".git"), url: c.filesURL()}
		if err := r.make(f); err != nil {
			return fmt.Errorf("make repository %s: %w", f.Name, err)
		}
	}
	return nil
}

// repository is a git repository while it is made.
type repository struct {
	root, work, bare string
	url              string // of the case's directory on the server
}

func (r *repository) make(f txtar.File) error {
	lines, err := parseLines(string(f.Data))
	if err != nil {
		return err
	}
	if err := r.git(r.root, "init", "-q", "--bare", r.bare); err != nil {
		return err
	}
	if err := r.git(r.root, "clone", "-q", r.bare, r.work); err != nil {
		return err
	}
	for _, l := range lines {
		if err := r.do(l.words[0], l.words[1:]); err != nil {
			return fmt.Errorf("line %d: %w", l.number, err)
		}
	}
	if err := r.git(r.work, "push", "-q", "--all"); err != nil {
		return err
	}
	return r.git(r.work, "push", "-q", "--tags")
}

//nolint:funlen // closed switch over the commands of a script
func (r *repository) do(command string, args []string) error {
	least := map[string]int{
		"file": 2, "exec": 1, "symlink": 2, "rm": 1, "commit": 1, "branch": 1, "checkout": 1, "tag": 1, "annotate": 2,
		"ref": 1, "config": 2, "submodule": 2, "empty": 0, "object": 1,
	}
	if n, ok := least[command]; !ok || len(args) < n {
		return fmt.Errorf("unknown command or too few arguments: %s %q", command, args)
	}
	switch command {
	case "file":
		return writeFile(filepath.Join(r.work, args[0]), []byte(args[1]))
	case "exec":
		return os.Chmod(filepath.Join(r.work, args[0]), 0o755)
	case "symlink":
		return os.Symlink(args[0], filepath.Join(r.work, args[1]))
	case "rm":
		return os.RemoveAll(filepath.Join(r.work, args[0]))
	case "commit":
		if err := r.git(r.work, "add", "-A", "-f"); err != nil {
			return err
		}
		return r.git(r.work, "commit", "-q", "--allow-empty", "-m", args[0])
	case "branch":
		return r.git(r.work, "checkout", "-q", "-b", args[0])
	case "checkout":
		return r.git(r.work, "checkout", "-q", args[0])
	case "tag":
		return r.git(r.work, "tag", args[0])
	case "annotate":
		return r.git(r.work, "tag", "-a", "-m", args[1], args[0])
	case "ref":
		return r.git(r.work, "push", "-q", "origin", "HEAD:"+args[0])
	case "config":
		return r.git(r.bare, "config", args[0], args[1])
	case "submodule":
		from := strings.ReplaceAll(args[0], filesWord, r.url)
		return r.submodule(from, args[1])
	}
	return fmt.Errorf("unknown command %s", command)
}

// submodule adds one by hand: git itself would want to fetch it. The commit is the head of the repository of that name.
func (r *repository) submodule(from, path string) error {
	name := strings.TrimSuffix(filepath.Base(from), ".git")
	out, err := r.command(filepath.Join(r.root, name+".git"), "rev-parse", "HEAD").Output()
	if err != nil {
		return fmt.Errorf("find the head of %s: %w", name, err)
	}
	if err := r.git(r.work, "config", "-f", ".gitmodules", "submodule."+path+".path", path); err != nil {
		return err
	}
	if err := r.git(r.work, "config", "-f", ".gitmodules", "submodule."+path+".url", from); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(r.work, path), 0o755); err != nil {
		return err
	}
	return r.git(r.work, "update-index", "--add", "--cacheinfo", "160000,"+strings.TrimSpace(string(out))+","+path)
}

func (r *repository) git(dir string, args ...string) error {
	if out, err := r.command(dir, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (r *repository) command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, gitEnv(r.root)
	return cmd
}
