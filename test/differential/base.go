package main

import "golang.org/x/tools/txtar"

// plainImage is what random images and Dockerfiles stand on: users, a file for what scripts say, and whatever
// BuildKit would make and remove for a step: that changes the time of /etc, see docs/exactness.md.
const plainImage = `
layer
dir . 0755 0:0
dir bin 0755 0:0
dir dev 0755 0:0
dir etc 0755 0:0
dir proc 0755 0:0
dir root 0700 0:0
dir sys 0755 0:0
dir tmp 1777 0:0
dir w 0777 0:0
file log 0666 0:0 ""
file etc/hosts 0644 0:0 ""
file etc/resolv.conf 0644 0:0 ""
file etc/passwd 0644 0:0 "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\nbob:x:1002:1003::/home/bob:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
file etc/group 0644 0:0 "root:x:0:\nstaff:x:50:alice,bob\naudio:x:29:alice\nalice:x:1001:\nbob:x:1003:\n"
`

// shellPart is what the image "base" has over "plain".
const shellPart = `shell
config ` + "`" + `{"Env":["PATH=/bin"],"Cmd":["/bin/sh"]}` + "`\n"

// parse reads a case as a recipe that cannot be shrunk.
func parse(text string) recipe {
	var w writer
	a := txtar.Parse([]byte(text))
	w.file("", string(a.Comment))
	for _, f := range a.Files {
		w.file(f.Name, string(f.Data))
	}
	return recipe{w.units}
}
