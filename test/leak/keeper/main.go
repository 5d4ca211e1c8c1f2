// Command keeper is the program that has the secrets in a leak scan. It says
// which ones it has by their hashes, and otherwise keeps them for itself.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	var err error
	switch command := append(os.Args, "")[1]; command {
	case "serve":
		err = serve()
	case "hold":
		hold()
	case "check":
		time.Sleep(50 * time.Millisecond) // long enough to be looked at
	case "sums":
		err = sums(os.Args[2:])
	case "fail":
		err = fmt.Errorf("failing, as told to")
	case "spill":
		err = spill(os.Args[2:])
	default:
		err = fmt.Errorf("unknown command %q", command)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		os.Exit(1)
	}
}

// serve waits for SIGTERM, with a child, and says when it gets SIGHUP.
func serve() error {
	child := exec.Command("/proc/self/exe", "hold")
	stdin, err := child.StdinPipe() // ends with us
	if err != nil {
		return err
	}
	defer stdin.Close()
	if err := child.Start(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	fmt.Println("ready")
	for s := range signals {
		if s == syscall.SIGTERM {
			return nil
		}
		fmt.Println("told of new secrets")
	}
	return nil
}

// hold waits until standard input ends.
func hold() {
	fmt.Println("holding")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// sums prints the hash of each file, of all in /run/secrets, and of each variable.
func sums(files []string) error {
	entries, err := os.ReadDir("/run/secrets")
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, "/run/secrets/"+e.Name())
		}
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		show(f, b)
	}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		show("$"+name, []byte(value))
	}
	return nil
}

func show(what string, value []byte) {
	sum := sha256.Sum256(value)
	fmt.Println(what, hex.EncodeToString(sum[:]))
}

// spill does what a program must not do with a secret, $SPILL: writes it to the
// log and into its own file system. The scan has to find it there.
func spill(names []string) error {
	value := os.Getenv("SPILL")
	fmt.Println(value)
	for _, n := range names {
		if err := os.WriteFile(n, []byte(value), 0o600); err != nil {
			return err
		}
	}
	return serve()
}
