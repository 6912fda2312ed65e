package solve

import (
	"context"
	"sync"

	"hako/internal/filecopy"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/tree"
)

// heldParts are parts of trees that are no layers, such as the build context, made into layers so that they can be mounted:
// each once, however many steps mount it.
type heldParts struct {
	maker Maker

	mu   sync.Mutex // guards held
	held map[partKey]func() (*rootfs.Stack, error)
}

// partKey is what a part is: the tree, and the literal path.
type partKey struct {
	from plan.From
	path string
}

func newParts(maker Maker) *heldParts {
	return &heldParts{maker: maker, held: map[partKey]func() (*rootfs.Stack, error){}}
}

// stack is a part of from, which people call name, as a stack of one layer. The first caller's context counts for all: they are steps of one build.
func (p *heldParts) stack(ctx context.Context, from tree.Tree, name string, key partKey) (*rootfs.Stack, error) {
	p.mu.Lock()
	get := p.held[key]
	if get == nil {
		get = sync.OnceValues(func() (*rootfs.Stack, error) {
			src, err := p.maker.Hold(ctx, filecopy.Subtree(from, name, key.path))
			if err != nil {
				return nil, err
			}
			return rootfs.NewStack(src), nil
		})
		p.held[key] = get
	}
	p.mu.Unlock()
	return get()
}
