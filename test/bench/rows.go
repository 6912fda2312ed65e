package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

const (
	smallFiles    = 30_000
	bigFileBlocks = 1024 // of 1 MiB
)

// row is one workload.
type row struct {
	name, what string
	// base is what the Dockerfile starts from, a repository of the registry; it has the registry's address in place of "@".
	base, dockerfile string
	// files writes what the Dockerfile copies; nil for nothing.
	files func(dir string) error
}

// rows are all workloads; the names are what -rows takes.
func rows() []row {
	touch := func(i int) string { return fmt.Sprintf("touch /file%d", i) }
	return []row{
		{"trivial", "busybox, COPY of one file, CMD", busyboxBase, "FROM @" + busyboxBase + "\nCOPY hello /\nCMD [\"cat\", \"/hello\"]\n", writeHello},
		{"run-1", "Debian, one RUN true", debianBase, debianWith(1, func(int) string { return "true" }), nil},
		{"run-10", "Debian, ten RUN that touch a file", debianBase, debianWith(10, touch), nil},
		{"run-40", "Debian, forty RUN true", debianBase, debianWith(40, func(int) string { return "true" }), nil},
		{"files", "busybox, COPY of 30,000 small files", busyboxBase, "FROM @" + busyboxBase + "\nCOPY files /files\n", writeFiles},
		{"touch", "Debian, COPY of 30,000 small files, RUN touches 5,000", debianBase,
			"FROM @" + debianBase + "\nCOPY files /files\nRUN find /files -type f | sort | head -n 5000 | xargs touch -d 2020-01-02\n", writeFiles},
		{"wide", "base of 654 MB, 5 layers, 70,000 files; RUN touch, COPY", wideBase, "FROM @" + wideBase + "\nRUN touch /file\nCOPY hello /\n", writeHello},
		{"change", "Debian, eight instructions; a one-line change in the last COPY", debianBase, changeDockerfile, writeLines},
		{"golang", "Go, RUN go build of a web server, COPY into scratch", golangBase, golangDockerfile, writeProgram},
		{"stages", "four stages of about 5 s (two sleep, CPU, files), joined", busyboxBase, stagesDockerfile, nil},
		{"big", "busybox, COPY of one 1 GiB file, half random, half text", busyboxBase, "FROM @" + busyboxBase + "\nCOPY big /\n", writeBig},
	}
}

const changeDockerfile = "FROM @" + debianBase + `
ENV NAME=value
WORKDIR /srv
RUN seq 100000 > numbers
COPY middle /srv/
RUN sort -n numbers | md5sum > sum
LABEL name=value
RUN find /usr | sort > list
COPY line /srv/
`

// lineFile is what changes between two builds; middleFile is needed earlier.
const (
	lineFile   = "line"
	middleFile = "middle"
)

func writeLines(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, middleFile), []byte("middle\n"), 0o644); err != nil {
		return err
	}
	return writeLine(dir)
}

func writeLine(dir string) error {
	return os.WriteFile(filepath.Join(dir, lineFile), []byte("one\n"), 0o644)
}

// changes says whether the context is one in which a line changes between two builds.
func changes(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, lineFile))
	return err == nil
}

const golangDockerfile = "FROM @" + golangBase + ` AS build
ENV PATH=/usr/local/go/bin:/usr/bin:/bin GOTOOLCHAIN=local GOFLAGS=-trimpath CGO_ENABLED=0
WORKDIR /src
COPY go.mod main.go ./
RUN go build -ldflags=-buildid= -o /server .
FROM scratch
COPY --from=build /server /server
ENTRYPOINT ["/server"]
`

const stagesDockerfile = "FROM @" + busyboxBase + ` AS a
RUN sleep 5; echo a > /a
FROM @` + busyboxBase + ` AS b
RUN sleep 5; echo b > /b
FROM @` + busyboxBase + ` AS c
RUN i=0; while [ $i -lt 4000000 ]; do i=$((i+1)); done; echo $i > /c
FROM @` + busyboxBase + ` AS d
RUN mkdir /f; i=0; while [ $i -lt 30000 ]; do echo $i > /f/$i; i=$((i+1)); done; cat /f/* | sort -n | md5sum > /d; rm -r /f
FROM @` + busyboxBase + `
COPY --from=a /a /
COPY --from=b /b /
COPY --from=c /c /
COPY --from=d /d /
`

func writeProgram(dir string) error {
	const program = `package main

import (
	"encoding/json"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(r.Header)
	})
	if http.ListenAndServe(":8080", nil) != nil {
		os.Exit(1)
	}
}
`
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module server\n\ngo 1.24\n"), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o644)
}

// debianWith is a Dockerfile of n RUN steps. Each says its number, so that no builder takes one for another.
func debianWith(n int, command func(int) string) string {
	var b strings.Builder
	b.WriteString("FROM @" + debianBase + "\n")
	for i := range n {
		fmt.Fprintf(&b, "RUN %s # %d\n", command(i), i)
	}
	return b.String()
}

// write makes the context of the row in dir.
func (r row) write(dir, registry string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	text := strings.ReplaceAll(r.dockerfile, "@", registry)
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		return err
	}
	if r.files == nil {
		return nil
	}
	return r.files(dir)
}

func writeHello(dir string) error {
	return os.WriteFile(filepath.Join(dir, "hello"), []byte("hello\n"), 0o644)
}

// writeFiles writes files in 300 directories: a median of about 1 KiB, a mean of about 4 KiB, as source trees have.
func writeFiles(dir string) error {
	rng := rand.New(rand.NewPCG(1, 2))
	text := words(rng, 1<<20)
	for i := range smallFiles {
		sub := filepath.Join(dir, "files", fmt.Sprintf("d%02d", i/2000), fmt.Sprintf("e%02d", i/100%20))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		size := min(int(1000*rng.ExpFloat64()*rng.ExpFloat64()*4), 200_000)
		at := rng.IntN(len(text) - size)
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%05d.txt", i)), text[at:at+size], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeBig writes 1 GiB: random and text in turns of 1 MiB.
func writeBig(dir string) error {
	f, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	rng := rand.New(rand.NewPCG(3, 4))
	text := words(rng, 16<<20)
	block := make([]byte, 1<<20)
	for i := range bigFileBlocks {
		b := block
		if i%2 == 0 {
			_, _ = random.Read(block) // never fails
		} else {
			at := rng.IntN(len(text) - 1<<20)
			b = text[at : at+1<<20]
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// words is text of about size bytes, compressible as prose is.
func words(rng *rand.Rand, size int) []byte {
	vocabulary := make([]string, 4000)
	for i := range vocabulary {
		w := make([]byte, 2+rng.IntN(9))
		for j := range w {
			w[j] = "etaoinshrdlucmfwypvbgkjqxz"[min(int(rng.ExpFloat64()*6), 25)]
		}
		vocabulary[i] = string(w)
	}
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(vocabulary[min(int(rng.ExpFloat64()*500), len(vocabulary)-1)])
		b.WriteByte(" \n"[rng.IntN(12)/11])
	}
	return []byte(b.String())
}
