package plan

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"hako/internal/diag"
)

// epochName is the variable of reproducible-builds.org: a time for everything that would otherwise be made now.
const epochName = "SOURCE_DATE_EPOCH"

// contextEpoch is the value that stands for the time of the build context.
const contextEpoch = "context"

// readEpoch takes the epoch from the build arguments, or else from an ARG before the first FROM. What it stands for
// takes its place wherever it was given, so that steps with an ARG of this name see a number, or nothing, as in BuildKit.
func (b *builder) readEpoch(args []instructions.ArgCommand) error {
	text, given := b.opts.BuildArgs[epochName]
	if !given {
		text, _ = b.globals.Get(epochName)
		if text == "" {
			return nil
		}
	}
	epoch, err := b.parseEpoch(text)
	if err != nil {
		return b.located(err, epochAt(args, given))
	}
	b.epoch = epoch
	if given {
		b.opts.BuildArgs = maps.Clone(b.opts.BuildArgs)
		delete(b.opts.BuildArgs, epochName)
	}
	_, global := b.globals.Get(epochName)
	b.globals.unset(epochName)
	if epoch == nil {
		return nil
	}
	number := strconv.FormatInt(epoch.Unix(), 10)
	if given {
		b.opts.BuildArgs[epochName] = number
	}
	if global {
		b.globals.set(epochName, number)
	}
	return nil
}

// epochAt is where the epoch stands in the file, if it does.
func epochAt(args []instructions.ArgCommand, given bool) []parser.Range {
	for i := range args {
		for _, kv := range args[i].Args {
			if kv.Key == epochName && !given {
				return args[i].Location()
			}
		}
	}
	return nil
}

// parseEpoch is the time that text stands for; nil if for none.
func (b *builder) parseEpoch(text string) (*time.Time, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no epoch is an answer
	}
	if sec, err := strconv.ParseInt(text, 10, 64); err == nil {
		t := time.Unix(sec, 0).UTC()
		if year := t.Year(); year < 0 || year > 9999 { // RFC 3339, which a configuration has its times in, ends there
			return nil, &diag.Error{What: fmt.Sprintf("%s=%s is beyond the year 9999", epochName, text), Hint: "Give seconds since 1970."}
		}
		return &t, nil
	}
	if text == contextEpoch {
		return b.opts.ContextTime, nil
	}
	return nil, &diag.Error{
		What: fmt.Sprintf("invalid %s: %s", epochName, text),
		Hint: "Give a number of seconds since 1970, or \"context\" for the time of the commit that the build context is.",
	}
}
