package filecopy

import (
	"errors"
	"io/fs"
	"strconv"

	"github.com/tonistiigi/dchapes-mode"
)

// chmod is a parsed --chmod; nil leaves modes as they are.
type chmod struct {
	octal    uint32
	symbolic bool
	set      mode.Set
}

var errChmod = errors.New("not a mode")

// parseChmod reads the value of --chmod, which is empty if there is none.
func parseChmod(s string) (*chmod, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // no change is an answer here
	}
	if n, err := strconv.ParseUint(s, 8, 32); err == nil {
		if n > modeAll {
			return nil, errChmod
		}
		return &chmod{octal: uint32(n)}, nil
	}
	set, err := mode.ParseWithUmask(s, 0)
	if err != nil {
		return nil, errChmod
	}
	return &chmod{symbolic: true, set: set}, nil
}

// apply is the mode of a file that had the mode m.
func (c *chmod) apply(m uint32, dir bool) uint32 {
	switch {
	case c == nil:
		return m
	case !c.symbolic:
		return c.octal
	}
	before := fs.FileMode(m & modePerm)
	for _, b := range specialBits() {
		if m&b.bit != 0 {
			before |= b.flag
		}
	}
	if dir {
		before |= fs.ModeDir
	}
	after := c.set.Apply(before)
	out := uint32(after.Perm())
	for _, b := range specialBits() {
		if after&b.flag != 0 {
			out |= b.bit
		}
	}
	return out
}

// specialBit is a mode bit that Go keeps elsewhere.
type specialBit struct {
	bit  uint32
	flag fs.FileMode
}

func specialBits() [3]specialBit {
	return [...]specialBit{{0o4000, fs.ModeSetuid}, {modeSetGID, fs.ModeSetgid}, {0o1000, fs.ModeSticky}}
}
