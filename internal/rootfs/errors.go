package rootfs

import "errors"

var (
	errNotDirectory = errors.New("not a directory")
	errNotRegular   = errors.New("not a regular file")
)
