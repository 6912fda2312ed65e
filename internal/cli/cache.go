package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hako/internal/build"
	"hako/internal/cache"
	"hako/internal/ui"
)

// cacheFlagSet is what "hako cache" is told besides how to reach registries.
type cacheFlagSet struct {
	format, sort, maxSize string
	olderThan, unusedFor  time.Duration
	grace                 time.Duration
	all, dry              bool
}

// cacheCommand lists and prunes caches.
func (c *command) cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cache", Short: "List or prune a cache", Args: noOperands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	set := &cacheFlagSet{}
	ls := c.cacheSubcommand("ls PLACE", "List what is in a cache: a repository, or oci:DIRECTORY", func(ctx context.Context, env build.Env, req build.Request) error {
		return c.cacheList(ctx, env, req, set)
	})
	ls.Flags().StringVar(&set.sort, "sort", "age", "order of the list: age, used or size")
	prune := c.cacheSubcommand("prune PLACE", "Remove from a cache what is old, too much, or used by nothing", func(ctx context.Context, env build.Env, req build.Request) error {
		return c.cachePrune(ctx, env, req, set)
	})
	f := prune.Flags()
	f.BoolVar(&set.all, "all", false, "remove everything")
	f.BoolVar(&set.dry, "dry-run", false, "only say what would be removed")
	f.DurationVar(&set.olderThan, "older-than", 0, "remove what was made that long ago, as 336h")
	f.DurationVar(&set.unusedFor, "unused-for", 0, "remove what was not used for that long; a registry does not tell, so there the age counts")
	f.StringVar(&set.maxSize, "max-size", "", "remove what was not used for longest until the rest has that size, as 20g")
	f.DurationVar(&set.grace, "grace", cache.Grace, "keep what was used that recently, because a build may need it")
	for _, sub := range []*cobra.Command{ls, prune} {
		sub.Flags().StringVar(&set.format, "format", "text", "how to show it: text or json")
		cmd.AddCommand(sub)
	}
	return cmd
}

// cacheSubcommand is a command about one cache.
func (c *command) cacheSubcommand(use, short string, do func(ctx context.Context, env build.Env, req build.Request) error) *cobra.Command {
	vs := newValues()
	cmd := &cobra.Command{Use: use, Short: short, Args: func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{errors.New("name one cache: a repository, or oci:DIRECTORY")}
		}
		return nil
	}}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c.vs = vs
		if err := c.openLog(); err != nil {
			return err
		}
		req := build.Request{Registry: c.registry(vs), Cache: build.Cache{Repository: args[0]}}
		return do(cmd.Context(), c.buildEnv(c.ui), req)
	}
	vs.registerSome(cmd.Flags(), slices.DeleteFunc(append(registryFlags(), logFlags()...), func(f flag) bool { return f.name == "trace" }))
	return cmd
}

func (c *command) cacheList(ctx context.Context, env build.Env, req build.Request, set *cacheFlagSet) error {
	if !slices.Contains([]string{"age", "used", "size"}, set.sort) {
		return usageError{fmt.Errorf("--sort %q is none of age, used, size", set.sort)}
	}
	if err := set.checkFormat(); err != nil {
		return err
	}
	all, err := build.ListCache(ctx, env, req)
	if err != nil {
		return err
	}
	slices.SortStableFunc(all.Entries, func(a, b cache.Entry) int {
		switch set.sort {
		case "used":
			return b.LastUse().Compare(a.LastUse())
		case "size":
			return cmp.Compare(b.Size, a.Size)
		}
		return b.Created().Compare(a.Created())
	})
	if set.format == "json" {
		return writeCacheJSON(c.env.Stdout, all)
	}
	if err := writeCacheTable(c.env.Stdout, all, c.env.Now()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.env.Stdout, "%d records%s, %s in all\n", len(all.Entries), loose(all), ui.Size(all.Size()))
	return err
}

func (c *command) cachePrune(ctx context.Context, env build.Env, req build.Request, set *cacheFlagSet) error {
	if err := set.checkFormat(); err != nil {
		return err
	}
	limit, err := sizeBytes(set.maxSize)
	if err != nil {
		return usageError{fmt.Errorf("--max-size: %w", err)}
	}
	if set.maxSize != "" && limit == 0 {
		return usageError{errors.New("--max-size=0 would remove everything: use --all")}
	}
	if set.olderThan < 0 || set.unusedFor < 0 || set.grace < 0 {
		return usageError{errors.New("a time before now cannot be negative")}
	}
	gone, err := build.PruneCache(ctx, env, req, cache.Rules{All: set.all, OlderThan: set.olderThan, UnusedFor: set.unusedFor, MaxSize: limit, Grace: set.grace}, set.dry)
	if gone == nil {
		return err
	}
	if set.format == "json" {
		return errors.Join(err, writeCacheJSON(c.env.Stdout, gone))
	}
	what := "removed"
	if set.dry {
		what = "would remove"
	}
	werr := writeCacheTable(c.env.Stdout, gone, c.env.Now())
	_, perr := fmt.Fprintf(c.env.Stdout, "%s %d records%s, %s\n", what, len(gone.Entries), loose(gone), ui.Size(gone.Size()))
	return errors.Join(err, werr, perr)
}

func (f *cacheFlagSet) checkFormat() error {
	if f.format != "text" && f.format != "json" {
		return usageError{fmt.Errorf("--format %q is none of text, json", f.format)}
	}
	return nil
}

// loose says how many blobs belong to nothing, or nothing.
func loose(v *cache.Inventory) string {
	if len(v.Loose) == 0 {
		return ""
	}
	return fmt.Sprintf(" and %d blobs of none", len(v.Loose))
}

func writeCacheTable(out io.Writer, v *cache.Inventory, now time.Time) error {
	if len(v.Entries) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tMADE\tUSED\tSIZE\tIMAGE\tWHAT") // errors come from Flush
	for i := range v.Entries {
		e := &v.Entries[i]
		image := "-"
		if e.Record != nil && e.Record.Image != "" {
			image = e.Record.Image
		}
		const enough = 12 // digits
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Keys[0][:enough], ago(e.Created(), now), ago(e.Used, now), ui.Size(e.Size), printable(image), printable(e.What()))
	}
	return w.Flush()
}

// printable keeps what others wrote from changing the terminal or the table.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// ago is a time before now for people.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "-"
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// cacheJSON is the list as JSON.
type cacheJSON struct {
	Records []recordJSON `json:"records"`
	// Unreferenced are blobs that no record names.
	Unreferenced []blobJSON `json:"unreferenced"`
	// Size is in bytes; each blob counts once.
	Size int64 `json:"size"`
}

type recordJSON struct {
	Keys    []cache.Key `json:"keys"`
	Created *time.Time  `json:"created,omitempty"`
	Used    *time.Time  `json:"used,omitempty"`
	Size    int64       `json:"size"`
	Image   string      `json:"image,omitempty"`
	What    string      `json:"what"`
	Digest  string      `json:"digest,omitempty"` // of the manifest in a registry
}

type blobJSON struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

func writeCacheJSON(out io.Writer, v *cache.Inventory) error {
	doc := cacheJSON{Records: []recordJSON{}, Unreferenced: []blobJSON{}, Size: v.Size()}
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	for i := range v.Entries {
		e := &v.Entries[i]
		r := recordJSON{Keys: e.Keys, Created: at(e.Created()), Used: at(e.Used), Size: e.Size, What: e.What(), Digest: e.ID}
		if e.Record != nil {
			r.Image = e.Record.Image
		}
		doc.Records = append(doc.Records, r)
	}
	for _, l := range v.Loose {
		doc.Unreferenced = append(doc.Unreferenced, blobJSON{Name: l.Name, Size: l.Size})
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(doc)
}
