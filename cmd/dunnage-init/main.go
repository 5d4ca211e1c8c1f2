// Command dunnage-init runs within a container, bind-mounted read-only by the
// engine. It needs nothing of the image.
//
//	dunnage-init init PROGRAM [ARGUMENT...]      the first process: runs the program, reaps zombies
//	dunnage-init env FILE PROGRAM [ARGUMENT...]  becomes the program, with the variables of the file in its environment
//	dunnage-init stdin PROGRAM [ARGUMENT...]     becomes the program, with a standard input that doesn't end
//	dunnage-init probe VERSION [FILE]            runs health checks that come through standard input, with the variables of the file
package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"dunnage/engine/inside"
)

// What becomes another program does so on the main thread: with any other, the
// kernel shows the process as a zombie for a moment.
func init() { runtime.LockOSThread() }

func main() {
	runtime.GOMAXPROCS(1)  // it waits nearly always: threads count against the container's limit
	debug.SetGCPercent(20) // so does memory
	switch args := os.Args[1:]; {
	case len(args) >= 2 && args[0] == "init":
		runtime.UnlockOSThread() // it stays what it is, and a thread that does nothing else is one more
		os.Exit(inside.Init(args[1:]))
	case len(args) >= 3 && args[0] == "env":
		os.Exit(inside.AddEnv(args[1], args[2:]))
	case len(args) >= 2 && args[0] == "stdin":
		os.Exit(inside.HoldInput(args[1:]))
	case (len(args) == 2 || len(args) == 3) && args[0] == "probe" && args[1] == inside.Version:
		if err := inside.Serve(os.Stdin, os.Stdout, append(args, "")[2]); err != nil {
			fail(err.Error())
		}
	default:
		fail("the engine runs this as `init PROGRAM...`, `env FILE PROGRAM...`, `stdin PROGRAM...` or `probe " + inside.Version + " [FILE]`")
	}
}

func fail(text string) {
	_, _ = os.Stderr.WriteString("dunnage-init: " + text + "\n") // there is no one else to tell
	os.Exit(2)
}
