package gitlfs_test

import (
	"strings"
	"testing"

	"hako/internal/gitlfs"
)

func TestParsePointer(t *testing.T) {
	t.Parallel()
	oid := strings.Repeat("ab", 32)
	good := "version https://git-lfs.github.com/spec/v1\noid sha256:" + oid + "\nsize 12345\n"
	for name, tc := range map[string]struct {
		text string
		want gitlfs.Pointer
		ok   bool
	}{
		"plain":         {good, gitlfs.Pointer{OID: oid, Size: 12345}, true},
		"no end":        {strings.TrimSuffix(good, "\n"), gitlfs.Pointer{OID: oid, Size: 12345}, true},
		"CRLF":          {strings.ReplaceAll(good, "\n", "\r\n"), gitlfs.Pointer{OID: oid, Size: 12345}, true},
		"old name":      {strings.Replace(good, "git-lfs.github.com", "hawser.github.com", 1), gitlfs.Pointer{OID: oid, Size: 12345}, true},
		"empty file":    {strings.Replace(good, "12345", "0", 1), gitlfs.Pointer{OID: oid}, true},
		"extension":     {strings.Replace(good, "oid", "ext-0-foo sha256:"+oid+"\noid", 1), gitlfs.Pointer{OID: oid, Size: 12345, Extended: true}, true},
		"nothing":       {"", gitlfs.Pointer{}, false},
		"text":          {"hello\nworld\n", gitlfs.Pointer{}, false},
		"other version": {strings.Replace(good, "/v1", "/v9", 1), gitlfs.Pointer{}, false},
		"version last":  {"oid sha256:" + oid + "\nsize 1\nversion https://git-lfs.github.com/spec/v1\n", gitlfs.Pointer{}, false},
		"twice":         {good + "size 3\n", gitlfs.Pointer{}, false},
		"md5":           {strings.Replace(good, "sha256", "md5", 1), gitlfs.Pointer{}, false},
		"short":         {strings.Replace(good, "abab", "ab", 1), gitlfs.Pointer{}, false},
		"upper case":    {strings.Replace(good, "abab", "ABAB", 1), gitlfs.Pointer{}, false},
		"negative":      {strings.Replace(good, "12345", "-1", 1), gitlfs.Pointer{}, false},
		"too large":     {strings.Replace(good, "12345", "99999999999999999999", 1), gitlfs.Pointer{}, false},
		"long":          {good + "x-" + strings.Repeat("y", gitlfs.MaxPointer) + " z\n", gitlfs.Pointer{}, false},
		"empty line":    {good + "\n\nx", gitlfs.Pointer{}, false},
	} {
		got, ok := gitlfs.ParsePointer([]byte(tc.text))
		if ok != tc.ok || ok && got != tc.want {
			t.Errorf("%s: %+v %v, want %+v %v", name, got, ok, tc.want, tc.ok)
		}
	}
}

func FuzzParsePointer(f *testing.F) {
	f.Add([]byte("version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("ab", 32) + "\nsize 12345\n"))
	f.Add([]byte("version x\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, ok := gitlfs.ParsePointer(data)
		if ok && (len(p.OID) != 64 || strings.Trim(p.OID, "0123456789abcdef") != "" || p.Size < 0) {
			t.Errorf("%q: %+v", data, p)
		}
	})
}
