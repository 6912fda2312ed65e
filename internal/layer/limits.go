package layer

// Limits bound what a layer may make us do. The zero value means the defaults.
type Limits struct {
	// Entries is the largest number of entries; 0 means 5 million.
	Entries int
	// NameBytes bounds the bytes of all paths, link targets and extended attributes; 0 means 2 GiB.
	NameBytes int64
	// TarBytes bounds the uncompressed layer; 0 means 1 TiB. Holes of sparse files count.
	TarBytes int64
}

const (
	defaultEntries   = 5_000_000
	defaultNameBytes = 2 << 30 // 2 GiB
	defaultTarBytes  = 1 << 40 // 1 TiB
)

func (l Limits) orDefault() Limits {
	if l.Entries == 0 {
		l.Entries = defaultEntries
	}
	if l.NameBytes == 0 {
		l.NameBytes = defaultNameBytes
	}
	if l.TarBytes == 0 {
		l.TarBytes = defaultTarBytes
	}
	return l
}
