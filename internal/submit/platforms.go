package submit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/output"
	"hako/internal/registry"
)

// A build for several platforms is a Job for each, on nodes of its architecture. They share one context. Each pushes its image
// by digest only; when all have, the index is made of these images here, signed here, and gets the tags. So nobody sees a tag
// before everything is there, and no pod gets the key.

// Parts are the platforms that get a Job each, in the index's order: none if the build is for one platform, or names none.
func (r *Request) Parts() ([]string, error) {
	platforms, err := image.ParsePlatforms(r.Build.Platforms)
	if err != nil || len(platforms) < 2 {
		return nil, err
	}
	var out []string
	for _, p := range platforms {
		out = append(out, image.FormatPlatform(p))
	}
	return out, nil
}

// whole is a build for several platforms.
type whole struct {
	// submitted has the context, and the name that those of the Jobs begin with; it is no Job itself.
	submitted
	platforms []string
	jobs      []*submitted
	index     build.IndexRequest
	told      *told
}

// buildParts runs a Job for each platform, and makes the index.
func buildParts(ctx context.Context, env Env, req *Request, platforms []string) (*Result, error) {
	w := &whole{submitted: submitted{env: env, req: req, name: req.Job.Name}, platforms: platforms, told: &told{seen: map[string]bool{}}}
	if w.name == "" {
		w.name = nameOf(req)
	}
	if err := w.validate(); err != nil {
		return nil, err
	}
	if err := w.pin(ctx); err != nil {
		return nil, err
	}
	for _, p := range platforms {
		w.jobs = append(w.jobs, w.part(p))
	}
	for _, s := range w.jobs {
		if req.Job.Name == "" {
			break // it is new
		}
		if err := s.free(ctx); err != nil {
			return nil, err
		}
	}
	if !req.Build.Outputs.NoPush {
		if err := build.CheckIndex(ctx, env.Build, w.index); err != nil {
			return nil, err
		}
	}
	defer func() { w.sent.close() }()
	if err := w.prepare(ctx); err != nil {
		return nil, err
	}
	images, err := w.run(ctx)
	if ferr := w.forgetContext(ctx); err != nil || ferr != nil {
		return nil, errors.Join(err, ferr)
	}
	if req.Build.Outputs.NoPush {
		w.say("built for " + strings.Join(platforms, ", ") + "; nothing is pushed, so there is no index")
		return &Result{Job: w.name}, nil
	}
	return w.join(ctx, images)
}

// pin makes the context that pods fetch by themselves the same for all of them.
func (w *whole) pin(ctx context.Context) error {
	if !w.req.PassContext {
		return nil
	}
	place, pinned, err := build.PinContext(ctx, w.env.Build, w.req.Build)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		w.warn("each platform looks up its context by itself, which has to stay as it is meanwhile, since it cannot be looked up from here: " + oneLine(err))
	case !pinned:
		w.warn("each platform fetches its context by itself, which has to stay as it is meanwhile")
	default:
		w.req.Build.Context = place
	}
	return nil
}

// validate refuses what several Jobs cannot do, and makes the request for the index.
func (w *whole) validate() error {
	b := &w.req.Build
	o := &b.Outputs
	files := o.DigestFile + o.NameWithDigestFile + o.NameTagWithDigestFile + o.MetadataFile + o.IIDFile
	switch {
	case w.req.Detach:
		return &diag.Error{
			What: "--detach: a build for several platforms ends with an index, which is made here",
			Hint: "Submit each platform by itself, with --platform, --push-by-digest and --detach, and join the images with hako index.",
		}
	case b.BuildArgs["SOURCE_DATE_EPOCH"] == "context":
		return &diag.Error{
			What: "SOURCE_DATE_EPOCH=context: the index of several platforms is made here, where the context's time is not known",
			Hint: "Give its seconds since 1970, as those of the last commit: --source-date-epoch=$(git log -1 --format=%ct).",
		}
	case o.NoPush && files != "":
		return &diag.Error{
			What: "--no-push: without a push there is no index of several platforms, and no digest to write to a file",
			Hint: "Leave out the file, or give a --destination and no --no-push.",
		}
	}
	if err := b.Validate(); err != nil {
		return err
	}
	epoch, err := build.ParseEpoch(b.BuildArgs["SOURCE_DATE_EPOCH"])
	if err != nil {
		return err
	}
	w.index = build.IndexRequest{
		Platforms: w.platforms, Outputs: *o, Registry: ofDestinations(b.Registry), Format: b.Format, Annotations: b.Annotations,
		Signing: b.Signing, Epoch: epoch, WorkDir: b.WorkDir,
	}
	return nil
}

// ofDestinations is r for reading what was just pushed: as laxly as that, and from no mirror.
func ofDestinations(r build.Registry) build.Registry {
	r.InsecurePull = r.InsecurePull || r.Insecure
	r.SkipTLSVerifyPull = r.SkipTLSVerifyPull || r.SkipTLSVerify
	r.Mirrors, r.OnlyMirrors = nil, false
	return r
}

// part is the Job of one platform.
func (w *whole) part(platform string) *submitted {
	r := *w.req
	r.Build.Platforms = []string{platform}
	r.Job.Labels = maps.Clone(r.Job.Labels)
	if r.Job.Labels == nil {
		r.Job.Labels = map[string]string{}
	}
	r.Job.Labels[buildLabel] = w.name
	r.Args = slices.Concat(r.Args, partArguments(&w.req.Build, platform))
	_, rest, _ := strings.Cut(platform, "/")
	env := w.env
	env.Build.Events = ofPlatform{platform, env.Build.Events, w.told}
	return &submitted{env: env, req: &r, name: w.name + "-" + strings.ReplaceAll(rest, "/", "-"), shared: true}
}

// partArguments are those of the pod of one platform, of what the build says of the whole: the annotations of its own manifest,
// and the format that annotations need.
func partArguments(b *build.Request, platform string) []string {
	out := []string{"--platform=" + platform}
	if !b.Outputs.NoPush {
		out = append(out, "--push-by-digest=true")
	}
	if len(b.Annotations) > 0 && b.Format == "" {
		out = append(out, "--image-format="+image.OCI.String())
	}
	for _, a := range b.Annotations {
		switch {
		case a.Level != image.OnManifest: // the others are the index's
		case a.Platform == "":
			out = append(out, fmt.Sprintf("--annotation=%s:%s=%s", a.Level, a.Key, a.Value))
		case a.Platform == platform:
			out = append(out, fmt.Sprintf("--annotation=%s[%s]:%s=%s", a.Level, a.Platform, a.Key, a.Value))
		}
	}
	return out
}

// run runs the Jobs, and returns what each has made. The first that fails ends the others.
func (w *whole) run(ctx context.Context) ([]output.Described, error) {
	inner, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	images, left := make([]output.Described, len(w.jobs)), make([]error, len(w.jobs))
	var all sync.WaitGroup
	for i, s := range w.jobs {
		s.sent, s.req.Files = w.sent, w.req.Files // prepare has added to them
		all.Go(func() {
			var err error
			if images[i], err, left[i] = s.make(inner); err != nil {
				stop(inPlatform(w.platforms[i], err)) // of several causes the first counts
			}
		})
	}
	all.Wait()
	err := context.Cause(inner)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		for i, s := range w.jobs {
			if images[i].Top.Digest != "" { // it has ended, and is of no use alone
				left = append(left, s.giveUp(ctx))
			}
		}
	}
	return images, errors.Join(append([]error{err}, left...)...)
}

// make runs a Job from its beginning to its end. What cannot be cleaned up is another error.
func (s *submitted) make(ctx context.Context) (_ output.Described, failed, left error) {
	if err := s.start(ctx); err != nil {
		return output.Described{}, err, nil
	}
	made, err := follow(ctx, s)
	if failed, left = s.clean(ctx, made, err); failed != nil {
		return output.Described{}, failed, left
	}
	d, failed := made.described()
	return d, failed, left
}

// join makes the index of the images, pushes it and writes the files.
func (w *whole) join(ctx context.Context, images []output.Described) (*Result, error) {
	o := &w.req.Build.Outputs
	from, err := registry.ParseReference(slices.Concat(o.Destinations, o.Repositories)[0])
	if err != nil {
		return nil, err
	}
	for _, d := range images {
		w.index.Images = append(w.index.Images, from.Context().Name()+"@"+d.Top.Digest.String())
	}
	made, err := build.Index(ctx, w.env.Build, w.index)
	if err != nil {
		w.say("the images of the platforms are pushed; hako index joins them: " + strings.Join(w.index.Images, " "))
		return nil, err
	}
	for _, d := range made.Destinations {
		if ref, err := registry.ParseReference(d); err == nil { // it was pushed to
			w.say("Pushed " + ref.Context().Name() + "@" + made.Digest.String())
		}
	}
	return &Result{Job: w.name, Made: output.Described{Top: made.Descriptor, Names: made.Destinations}}, nil
}

// notAttached says that a Job is not the whole build.
func notAttached(name string) error {
	return &diag.Error{
		What: "--attach " + name + ": of a build for several platforms the index is made where it was submitted",
		Hint: "Follow one of its Jobs with kubectl logs --follow, and join the images with hako index, or submit the build again: with --cache it goes on where it was.",
	}
}

// inPlatform says of an error where it happened.
func inPlatform(platform string, err error) error {
	if failed := (*FailedError)(nil); errors.As(err, &failed) && failed.err != nil {
		return &FailedError{failed.Code, inPlatform(platform, failed.err)}
	}
	if d := (*diag.Error)(nil); errors.As(err, &d) {
		located := *d
		located.What = platform + ": " + d.What
		return &located
	}
	return fmt.Errorf("%s: %w", platform, err)
}

// ofPlatform says of events which platform they are about, as a build for several platforms says it.
type ofPlatform struct {
	platform string
	to       event.Sink
	told     *told
}

// told are the warnings about lines of the Dockerfile, which each platform has, and one shows.
type told struct {
	mu   sync.Mutex // guards what follows
	seen map[string]bool
}

// first says whether a warning comes for the first time.
func (t *told) first(w event.Warning) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := w.Span.String() + ": " + w.Message
	again := t.seen[key]
	t.seen[key] = true
	return !again
}

// Emit passes an event on.
func (o ofPlatform) Emit(e event.Event) {
	before := o.platform + " "
	switch m := e.(type) {
	case event.StepStarted:
		m.Step = before + m.Step
		e = m
	case event.StepOutput:
		m.Step, m.Named = strings.TrimSpace(before+m.Step), true
		e = m
	case event.StepDone:
		m.Step = before + m.Step
		e = m
	case event.CacheMiss:
		m.Step = before + m.Step
		e = m
	case event.Progress:
		m.ID, m.What = before+m.ID, before+m.What
		e = m
	case event.Warning:
		if m.Span.Start == 0 {
			m.Message = before + m.Message
		} else if !o.told.first(m) {
			return
		}
		e = m
	case event.Info:
		m.Message = before + m.Message
		e = m
	case event.Debug:
		m.Message = before + m.Message
		e = m
	}
	o.to.Emit(e)
}
