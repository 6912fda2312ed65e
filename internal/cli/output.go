package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/image"
	"hako/internal/output"
	"hako/internal/registry"
)

// The options of --output and what they mean are buildx's. One build makes one image, however many outputs there are:
// what is said of the image itself (compression, media types, annotations) holds for all of them, and two outputs that
// want different images are an error.

// outputSpec is one --output.
type outputSpec struct {
	text    string
	kind    string
	options map[string]string
}

// optionsOf are the options of each kind of output, by kind.
func optionsOf() map[string][]string {
	files := []string{"dest", "src", "platform-split", "mode"}
	picture := []string{"name", "compression", "compression-level", "force-compression", "oci-mediatypes", "rewrite-timestamp", "annotation"}
	return map[string][]string{
		"local":     files,
		"tar":       files,
		"oci":       append([]string{"dest", "tar"}, picture...),
		"docker":    append([]string{"dest"}, picture...),
		"registry":  append([]string{"push", "push-by-digest", "name-canonical", "registry.insecure"}, picture...),
		"image":     append([]string{"push", "push-by-digest", "name-canonical", "registry.insecure"}, picture...),
		"cacheonly": nil,
	}
}

// parseOutput reads "type=KIND,KEY=VALUE,…", or a directory, or "-" for a tar on standard output.
func parseOutput(s string) (*outputSpec, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return nil, fmt.Errorf("--output %s: %w", s, err)
	}
	o := &outputSpec{text: s, options: map[string]string{}}
	if len(fields) == 1 && fields[0] == s && !strings.HasPrefix(s, "type=") {
		o.kind, o.options["dest"] = "local", s
		if s == output.Stdout {
			o.kind = "tar"
		}
		return o, nil
	}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("--output %s: %q is not KEY=VALUE", s, f)
		}
		key = strings.TrimSpace(key)
		if !strings.HasPrefix(key, "annotation") {
			key = strings.ToLower(key)
		}
		if key == "type" {
			o.kind = value
			continue
		}
		o.options[key] = value
	}
	return o, o.check()
}

// withoutAnnotations is the text of an --output without what it says of annotations.
func withoutAnnotations(s string) (string, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return "", fmt.Errorf("--output %s: %w", s, err)
	}
	fields = slices.DeleteFunc(fields, func(f string) bool { return strings.HasPrefix(strings.TrimSpace(f), "annotation") })
	var b strings.Builder
	w := csv.NewWriter(&b)
	err = w.Write(fields)
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n"), errors.Join(err, w.Error())
}

// check refuses kinds and options that do not exist.
func (o *outputSpec) check() error {
	if o.kind == "" {
		return o.fail("the type is missing", "Start it with type=local, tar, oci, docker or registry.")
	}
	allowed, ok := optionsOf()[o.kind]
	if !ok {
		kinds := slices.Sorted(maps.Keys(optionsOf()))
		return o.fail(fmt.Sprintf("unknown type %q", o.kind), orNearest(o.kind, kinds, "Use one of "+strings.Join(kinds, ", ")+"."))
	}
	for _, key := range slices.Sorted(maps.Keys(o.options)) {
		if isAnnotation := strings.HasPrefix(key, "annotation"); !slices.Contains(allowed, key) && !(isAnnotation && slices.Contains(allowed, "annotation")) {
			return o.fail(fmt.Sprintf("type=%s has no option %q", o.kind, key), orNearest(key, allowed, ""))
		}
	}
	return nil
}

func orNearest(word string, options []string, otherwise string) string {
	if near, ok := diag.Nearest(word, options); ok {
		return "Did you mean " + near + "?"
	}
	return otherwise
}

func (o *outputSpec) fail(why, hint string) error {
	return &diag.Error{What: fmt.Sprintf("--output %s: %s", o.text, why), Hint: hint}
}

// bool is a bool option; one without a value is true, as in BuildKit.
func (o *outputSpec) bool(key string, otherwise bool) (bool, error) {
	text, ok := o.options[key]
	if !ok {
		return otherwise, nil
	}
	if text == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, o.fail(fmt.Sprintf("%s=%s is not a bool", key, text), "Use true or false.")
	}
	return b, nil
}

// names are the references of option name, which may be a list.
func (o *outputSpec) names() []string {
	if o.options["name"] == "" {
		return nil
	}
	return strings.FieldsFunc(o.options["name"], func(r rune) bool { return r == ',' })
}

// outputPlan is what all outputs together ask for.
type outputPlan struct {
	exports  []output.Export
	names    []string // to push to
	digests  []string // to push to without a tag
	insecure []string // hosts to reach by plain HTTP
	push     bool     // the names of the image are pushed to
	image    imageOptions
}

// imageOptions is what is said of the image itself; said remembers by whom.
type imageOptions struct {
	format      string
	compression string
	level       string
	force       string
	rewrite     string
	annotations image.Annotations
	said        map[*string]string
}

// set sets one of the options, and refuses two values.
func (i *imageOptions) set(field *string, value, by string) error {
	if i.said == nil {
		i.said = map[*string]string{}
	}
	if other, ok := i.said[field]; ok && *field != value {
		return &diag.Error{
			What: fmt.Sprintf("%s and %s want different images", other, by),
			Hint: "One build makes one image: give all outputs the same options, or build twice.",
		}
	}
	i.said[field], *field = by, value
	return nil
}

// add takes up one output.
func (p *outputPlan) add(o *outputSpec) error {
	if err := p.addImage(o); err != nil {
		return err
	}
	switch o.kind {
	case "local", "tar":
		return p.addFiles(o)
	case "oci", "docker":
		return p.addArchive(o)
	case "registry", "image":
		return p.addRegistry(o)
	}
	return nil // cacheonly: nothing is written
}

func (p *outputPlan) addFiles(o *outputSpec) error {
	e := output.Export{Kind: output.Local, Dest: o.options["dest"], Source: o.options["src"]}
	if o.kind == "tar" {
		e.Kind = output.Tar
	}
	switch {
	case e.Kind == output.Tar && e.Dest == "":
		e.Dest = output.Stdout
	case e.Dest == "", e.Kind == output.Local && e.Dest == output.Stdout:
		return o.fail("the directory is missing", "Add dest=DIRECTORY.")
	}
	if mode, ok := o.options["mode"]; ok && mode != "copy" {
		return o.fail("mode="+mode+" is not supported", "Empty the directory before the build: what is there stays (mode=copy).")
	}
	if src, ok := o.options["src"]; ok && src == "" {
		return o.fail("src is empty", "Leave it out to write all files.")
	}
	if _, ok := o.options["platform-split"]; !ok {
		p.exports = append(p.exports, e)
		return nil
	}
	split, err := o.bool("platform-split", true)
	if err != nil {
		return err
	}
	e.Split = output.SplitAlways
	if !split {
		if e.Kind == output.Tar {
			return o.fail("platform-split=false is for type=local", "Leave it out.")
		}
		e.Split = output.SplitNever
	}
	p.exports = append(p.exports, e)
	return nil
}

func (p *outputPlan) addArchive(o *outputSpec) error {
	e := output.Export{Kind: output.OCI, Dest: o.options["dest"], Names: o.names()}
	isTar, err := o.bool("tar", true)
	if err != nil {
		return err
	}
	e.Directory = !isTar
	switch {
	case o.kind == "docker" && e.Dest == "":
		return o.fail("there is no Docker engine to load an image into", loadHint)
	case o.kind == "docker":
		e.Kind = output.Docker
	case e.Dest == "" && e.Directory:
		return o.fail("the directory is missing", "Add dest=DIRECTORY.")
	case e.Dest == "":
		e.Dest = output.Stdout
	}
	p.exports = append(p.exports, e)
	return nil
}

const loadHint = `Write an archive with --output type=docker,dest=FILE, and run "docker load -i FILE".`

func (p *outputPlan) addRegistry(o *outputSpec) error {
	push, err := o.bool("push", o.kind == "registry")
	if err != nil {
		return err
	}
	byDigest, err := o.bool("push-by-digest", false)
	if err != nil {
		return err
	}
	insecure, err := o.bool("registry.insecure", false)
	if err != nil {
		return err
	}
	names := o.names()
	switch {
	case !push:
		return o.fail("the image would go nowhere", "Add push=true, or use type=oci,dest=FILE: there is no store of images here.")
	case byDigest && len(names) == 0:
		return o.fail("push-by-digest needs a name", "Add name=REPOSITORY.")
	case byDigest:
		p.digests = append(p.digests, names...)
	case len(names) > 0:
		p.names = append(p.names, names...)
	default:
		p.push = true
	}
	if insecure {
		for _, n := range names {
			ref, err := registry.ParseReference(n)
			if err != nil {
				return err
			}
			p.insecure = append(p.insecure, ref.Context().RegistryStr())
		}
	}
	return nil
}

// addImage takes up what an output says of the image.
func (p *outputPlan) addImage(o *outputSpec) error {
	by := "--output " + o.text
	if v, ok := o.options["compression"]; ok {
		if !slices.Contains([]string{"gzip", "zstd", "uncompressed"}, v) {
			return o.fail(fmt.Sprintf("compression %q is not supported", v), "Use gzip, zstd or uncompressed.")
		}
		if err := p.image.set(&p.image.compression, v, by); err != nil {
			return err
		}
	}
	if v, ok := o.options["compression-level"]; ok {
		if n, err := strconv.Atoi(v); err != nil || n < 0 {
			return o.fail(fmt.Sprintf("compression-level=%s is not a level", v), "")
		}
		if err := p.image.set(&p.image.level, v, by); err != nil {
			return err
		}
	}
	for key, field := range map[string]*string{"oci-mediatypes": &p.image.format, "force-compression": &p.image.force, "rewrite-timestamp": &p.image.rewrite} {
		if _, ok := o.options[key]; !ok {
			continue
		}
		b, err := o.bool(key, false)
		if err != nil {
			return err
		}
		value := strconv.FormatBool(b)
		if key == "oci-mediatypes" {
			value = map[bool]string{true: "oci", false: "docker"}[b]
		}
		if err := p.image.set(field, value, by); err != nil {
			return err
		}
	}
	return p.addAnnotations(o)
}

func (p *outputPlan) addAnnotations(o *outputSpec) error {
	for _, key := range slices.Sorted(maps.Keys(o.options)) {
		if !strings.HasPrefix(key, "annotation") {
			continue
		}
		a, ok, err := image.ParseAnnotationOption(key, o.options[key])
		switch {
		case err != nil:
			return fmt.Errorf("--output %s: %w", o.text, err)
		case !ok:
			return o.fail(fmt.Sprintf("%q is no annotation", key), "Write annotation.KEY=VALUE or annotation-index.KEY=VALUE.")
		}
		for _, b := range p.image.annotations {
			if a.Level == b.Level && a.Platform == b.Platform && a.Key == b.Key && a.Value != b.Value {
				return o.fail(fmt.Sprintf("annotation %s has another value in another output", a.Key), "One build makes one image: give all outputs the same options, or build twice.")
			}
		}
		p.image.annotations = append(p.image.annotations, a)
	}
	return nil
}

// outputPlan reads all --output, --push and --load.
func (c *command) outputPlan(vs *values) (*outputPlan, error) {
	p := &outputPlan{push: vs.bool("push")}
	if vs.bool("load") {
		return nil, &diag.Error{What: "--load: there is no Docker engine to load an image into", Hint: loadHint}
	}
	for _, text := range vs.list("output") {
		o, err := parseOutput(text)
		if err != nil {
			return nil, err
		}
		if err := p.add(o); err != nil {
			return nil, err
		}
	}
	if p.toStdout() && isTerminal(c.env.Stdout) {
		return nil, &diag.Error{What: "the output would go to the terminal", Hint: "Add dest=FILE, or redirect standard output."}
	}
	return p, nil
}

// toStdout says whether an archive goes to standard output.
func (p *outputPlan) toStdout() bool {
	return slices.ContainsFunc(p.exports, func(e output.Export) bool { return e.Dest == output.Stdout })
}

// isTerminal says whether w is a character device that is not /dev/null.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0 && fi.Name() != os.DevNull
}

// request puts what was read into the request: names, exports and what is said of the image, by flags as well.
func (p *outputPlan) request(vs *values, req *build.Request) error {
	if len(vs.list("compression")) > 0 {
		if err := p.image.set(&p.image.compression, vs.str("compression"), "--compression "+vs.str("compression")); err != nil {
			return err
		}
	}
	if level := vs.int("compression-level"); level > 0 {
		if err := p.image.set(&p.image.level, strconv.Itoa(level), fmt.Sprintf("--compression-level %d", level)); err != nil {
			return err
		}
	}
	if f := vs.str("image-format"); f != "" {
		if err := p.image.set(&p.image.format, f, "--image-format "+f); err != nil {
			return err
		}
	}
	given, err := annotations(vs.list("annotation"))
	if err != nil {
		return err
	}
	req.Annotations = slices.Concat(given, p.image.annotations)
	req.Format = p.image.format
	req.Compression = firstSet(p.image.compression, vs.str("compression"))
	req.CompressionLevel, _ = strconv.Atoi(p.image.level) // it was checked; none is 0
	req.ForceCompression = p.image.force == "true"
	req.RewriteTimestamp = p.image.rewrite == "true" || vs.bool("rewrite-timestamp")
	req.Registry.InsecureRegistries = append(req.Registry.InsecureRegistries, p.insecure...)
	return nil
}

// outputs says where the result goes. Kaniko pushes to every destination. With --output, tags only name the image, as with
// buildx, unless something says to push it.
func (c *command) outputs(vs *values, p *outputPlan) (build.Outputs, error) {
	o := build.Outputs{
		Destinations: vs.list("destination"), NoPush: vs.bool("no-push"), ByDigest: vs.bool("push-by-digest"), Exports: p.exports, Repositories: p.digests,
		TarPath: vs.str("tar-path"), OCILayoutPath: vs.str("oci-layout-path"), DigestFile: vs.str("digest-file"),
		NameWithDigestFile: vs.str("image-name-with-digest-file"), NameTagWithDigestFile: vs.str("image-name-tag-with-digest-file"),
		MetadataFile: vs.str("metadata-file"), IIDFile: vs.str("iidfile"),
		SkipPushPermissionCheck: vs.bool("skip-push-permission-check"), PushRetries: vs.int("push-retry"), IgnoreImmutableTags: vs.bool("push-ignore-immutable-tag-errors"),
		BuilderOutputDir: c.getenv("BUILDER_OUTPUT"),
	}
	tags := vs.list("tag")
	if len(vs.list("output")) == 0 || p.push {
		o.Destinations = slices.Concat(o.Destinations, tags)
	} else {
		o.Names = tags
	}
	if p.push && len(o.Destinations) == 0 {
		return o, errors.New("a push needs the name of the image: give --tag")
	}
	o.Destinations = slices.Concat(o.Destinations, p.names)
	var err error
	if o.NoPush, err = c.boolVariable("KANIKO_NO_PUSH", o.NoPush); err != nil {
		return o, err
	}
	named := o.NameWithDigestFile != "" || o.NameTagWithDigestFile != ""
	pushes := len(o.Destinations)+len(o.Repositories) > 0
	switch {
	case named && !pushes && len(o.Names) == 0:
		return o, errors.New("you must provide --destination if setting --image-name-with-digest-file or --image-name-tag-with-digest-file")
	case o.PushRetries < 0:
		return o, errors.New("--push-retry must not be negative")
	case c.call.name == "check", c.call.name == "targets", vs.bool("dryrun"), o.NoPush, pushes:
		return o, nil
	case o.TarPath != "", o.OCILayoutPath != "", len(vs.list("output")) > 0:
		o.NoPush = true // there is nowhere to push to, but the image has a place to go
		return o, nil
	}
	return o, errors.New("you must provide --destination, or use --no-push")
}
