package solve

import (
	"fmt"
	"regexp"
	"strings"

	"hako/internal/image"
	"hako/internal/plan"
	"hako/internal/sandbox"
)

// advice is what to do about a failure that shows in what a command wrote.
type advice struct {
	// pattern is a regular expression for one line; hint may use its groups.
	pattern, hint string
}

// notExecutable is a shell's message, if that ended with code 126, and of any program otherwise.
const notExecutable = `(?:^|[ /])(\S+): (?:cannot execute: )?[Pp]ermission denied$`

// adviceList goes from the certain to the likely. The messages are those of the GNU C library, musl, curl, OpenSSL, Go, Node,
// apt, apk and the usual shells.
func adviceList() []advice {
	const network = "Check that the container reaches the network; give a proxy with --build-arg HTTP_PROXY=http://host:port and HTTPS_PROXY."
	return []advice{
		{`\r'?’?: (not found|command not found|No such file)|\\r'?’?: No such file|\^M: bad interpreter`, `A script has Windows line ends: convert it with dos2unix, or keep "* text eol=lf" in .gitattributes.`},
		{`No space left on device|ENOSPC`, "Free space in the work directory, or choose another place with --kaniko-dir."},
		{`Cannot allocate memory|ENOMEM|out of memory`, "Raise the container's memory limit, or run fewer steps at a time with --jobs."},
		{`E: Unable to locate package (\S+)`, `Run "apt-get update" in the same RUN as "apt-get install"; then check the name "$1".`},
		{`E: Package '(\S+)' has no installation candidate`, `Run "apt-get update" in the same RUN as "apt-get install"; then check the name "$1".`},
		{`E: Failed to fetch .* 404 +Not Found`, `Run "apt-get update" in the same RUN as "apt-get install": the package lists in the image are older than the archive.`},
		{`ERROR: unable to select packages`, `Check the names of the packages, and use "apk add --no-cache" so that the lists are new.`},
		{`Could not resolve|Temporary failure (in name resolution|resolving)|[Nn]ame or service not known|bad address '|no such host|EAI_AGAIN|getaddrinfo ENOTFOUND|[Tt]emporary error \(try again later\)`,
			"A name could not be resolved. " + network},
		{`SSL certificate problem|certificate verify failed|unable to get local issuer certificate|x509: certificate|[Ss]elf[- ]signed certificate`,
			"Install ca-certificates in an earlier step, or COPY the certificate of your own authority into the image."},
		{`Network is unreachable|Connection timed out|Connection refused|connection refused|i/o timeout|No route to host|ECONNREFUSED|ETIMEDOUT`, "A connection failed. " + network},
		{`unable to start container process: .*"([^"]+)": executable file not found`, `"$1" is not in the image: install it in an earlier step, or check PATH.`},
		{`unable to start container process: .*"([^"]+)": no such file or directory`, `"$1" is not in the image, or the interpreter in its first line or its dynamic loader is not: take one for this base image's libc.`},
		{`unable to start container process: .*"([^"]+)": permission denied`, `Make "$1" executable with COPY --chmod=755 or RUN chmod +x.`},
		{`[Ee]xec format error`, "A program is for another processor than this step's, $PLATFORM: take the one for $$TARGETARCH."},
		{notExecutable, `If "$1" is a program, make it executable with COPY --chmod=755 or RUN chmod +x.`},
	}
}

// advise says what to do about a command that failed, or nothing if that is not known. lines are what it wrote last.
func advise(exit *sandbox.ExitError, step *plan.Step, lines []string) string {
	op, _ := step.Op.(*plan.Run)
	if exit.Signal == 0 {
		if hint := adviceFor(lines, exit.Code == 126, image.FormatPlatform(step.Platform)); hint != "" {
			if op != nil && op.Network == plan.NetworkNone && strings.Contains(hint, "HTTP_PROXY") {
				return "The step has no network: leave out --network=none, or fetch in an earlier step."
			}
			return hint
		}
	}
	if exit.Signal == 0 && deniedTo(op, lines) {
		return fmt.Sprintf("The command ran as USER %s: set USER root before steps that change files of the system, or give it the files with COPY --chown.", op.User)
	}
	return exitHint(exit, lines)
}

// adviceFor finds the first advice for one of lines; notRun says that a program could not be executed.
func adviceFor(lines []string, notRun bool, platform string) string {
	for _, a := range adviceList() {
		if a.pattern == notExecutable && !notRun {
			continue
		}
		re := regexp.MustCompile(a.pattern)
		for _, l := range lines {
			if at := re.FindStringSubmatchIndex(l); at != nil {
				hint := strings.ReplaceAll(a.hint, "$PLATFORM", platform)
				return string(re.ExpandString(nil, hint, l, at))
			}
		}
	}
	return ""
}

// deniedTo says whether something was refused to a user other than root.
func deniedTo(op *plan.Run, lines []string) bool {
	if op == nil || op.User == "" || op.User == "0" || op.User == "root" || strings.HasPrefix(op.User, "0:") || strings.HasPrefix(op.User, "root:") {
		return false
	}
	for _, l := range lines {
		if strings.Contains(l, "ermission denied") || strings.Contains(l, "EACCES") || strings.Contains(l, "peration not permitted") {
			return true
		}
	}
	return false
}

// exitHint says what an exit code or a signal usually means.
func exitHint(e *sandbox.ExitError, lines []string) string {
	signal := e.Signal
	if signal == 0 && e.Code > 128 && e.Code <= 128+64 { // sh(1): a program was ended by a signal
		signal = e.Code - 128
	}
	switch {
	case signal == 9: // SIGKILL
		return "The command may have run out of memory: raise the container's memory limit, or run fewer steps at a time with --jobs."
	case signal == 11, signal == 7, signal == 6: // SIGSEGV, SIGBUS, SIGABRT
		return "A program crashed: check that it is meant for this base image (libc, processor), and that it runs there."
	case signal == 4: // SIGILL
		return "A program uses instructions that this processor lacks: build it for an older one (GOAMD64, -march)."
	case e.Code == 127: // sh(1): command not found
		if name := missingCommand(lines); name != "" {
			return fmt.Sprintf("%q is not in the image: install it in an earlier step, or check PATH.", name)
		}
		return "A command was not found: install it in an earlier step, or check PATH."
	case e.Code == 126: // sh(1): command found but not executable
		return "A command could not be executed: check its mode, its interpreter and its architecture."
	}
	return ""
}

// missingCommand is the name in a shell's or our own message about a command that is not there.
func missingCommand(lines []string) string {
	re := regexp.MustCompile(`(?:^|: )([^\s:]+): (?:command not found|not found)$|(?:^|: )"([^"]+)": (?:executable file not found|no such file or directory)`)
	for _, l := range lines {
		if m := re.FindStringSubmatch(l); m != nil {
			return m[1] + m[2]
		}
	}
	return ""
}
