package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"hako/internal/diag"
	"hako/internal/web"
)

const (
	tagsLimit    = 16 << 20  // bytes of one page of tags
	tagPageLimit = 10_000    // pages: no repository has more tags than fit into that many
	tagPage      = "1000"    // tags that we ask for at once; registries give fewer as they like
	allTagsLimit = 128 << 20 // bytes of all tags as we hold them, a million and more
)

// Tags lists the tags of the repository in no certain order. A repository that does not exist has none.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	what := "list the tags of " + r.Name()
	var all []string
	next := r.url("tags", "list") + "?n=" + tagPage
	left := allTagsLimit
	for page := 0; page < tagPageLimit && left >= 0; page++ {
		tags, link, err := r.tagsAt(ctx, next)
		if missing := new(ResponseError); errors.As(err, &missing) && missing.Status == http.StatusNotFound && !missing.Has("UNSUPPORTED") {
			return all, nil
		}
		if err != nil {
			return nil, r.explain(ctx, what, err)
		}
		for _, t := range tags {
			const stringBytes = 16 // beside what it says
			left -= stringBytes + len(t)
		}
		all = append(all, tags...)
		if link == "" || link == next {
			return all, nil
		}
		next = link
	}
	return nil, r.explain(ctx, what, refuse("the registry never comes to an end"))
}

// tagsAt fetches one page, and returns where the next one is, or nothing.
func (r *Repository) tagsAt(ctx context.Context, at string) (tags []string, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	resp, err := r.send(ctx, call{method: http.MethodGet, url: at, want: []int{http.StatusOK}})
	if err != nil {
		return nil, "", err
	}
	data, err := readSmall(resp, tagsLimit)
	if err != nil {
		return nil, "", err
	}
	var page struct{ Tags []string }
	if err := json.Unmarshal(data, &page); err != nil {
		return nil, "", fmt.Errorf("read the list of tags: %w", err)
	}
	next, err = nextPage(at, resp.Header.Get("Link"))
	return page.Tags, next, err
}

// nextPage is the address in a Link header (RFC 8288; distribution-spec, "Listing Tags"), which must be of the same list.
func nextPage(at, header string) (string, error) {
	address, parameters, _ := strings.Cut(header, ";")
	address = strings.TrimSpace(address)
	if !strings.Contains(parameters, "next") || !strings.HasPrefix(address, "<") || !strings.HasSuffix(address, ">") {
		return "", nil
	}
	here, err := url.Parse(at)
	if err != nil {
		return "", err
	}
	to, err := here.Parse(strings.Trim(address, "<>"))
	if err != nil {
		return "", refuse("the registry names no address for more tags")
	}
	// A proxy in front of a registry may call itself what it likes: only where in the list to go on is taken from it.
	here.RawQuery = to.RawQuery
	return here.String(), nil
}

// Delete removes the manifest that a digest names, with the tags that it has, or a tag. What is not there is no error.
// The repository has to be opened for [Delete]. Many registries refuse that unless they are told not to.
func (r *Repository) Delete(ctx context.Context, identifier string) error {
	what := "delete " + r.Name() + separator(identifier) + identifier
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	resp, err := r.send(ctx, call{
		method: http.MethodDelete, url: r.url("manifests", identifier),
		want: []int{http.StatusAccepted, http.StatusOK, http.StatusNoContent, http.StatusNotFound},
	})
	refused := new(ResponseError)
	if errors.As(err, &refused) && (refused.Status == http.StatusMethodNotAllowed || refused.Has("UNSUPPORTED")) {
		return &diag.Error{
			What: what, Cause: fmt.Errorf("%w: %w", ErrNoDelete, err),
			Hint: "Allow it (distribution's registry: REGISTRY_STORAGE_DELETE_ENABLED=true), or let the registry's own rules for old tags remove them: all begin with hako-.",
		}
	}
	if err != nil {
		return r.explain(ctx, what, err)
	}
	web.Discard(resp.Body)
	return nil
}

// ErrNoDelete is the cause of an error of a registry in which nothing can be deleted.
var ErrNoDelete = errors.New("this registry deletes nothing")
