// Command testapp is what the containers of tests run: one static program that
// is a web server, an echo server, a crasher, a log writer or a misbehaving
// process, by its first argument.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// commands by name; each gets the arguments after it.
var commands = map[string]func(args []string) error{
	"serve":    serve,    // serve [http-port [tcp-port [udp-port]]]: web server and echo servers
	"keep":     keep,     // keep FILE [PORT]: a web server that shows what FILE has, and reads it again at SIGHUP
	"sicken":   sicken,   // sicken AFTER: serve, but unhealthy after a duration
	"exit":     exit,     // exit CODE [AFTER]: end with a code after a duration
	"sleep":    sleep,    // sleep DURATION: ends at SIGTERM, SIGQUIT or SIGUSR1 with 128 + signal
	"stubborn": stubborn, // stubborn: ignores SIGTERM
	"spawn":    spawn,    // spawn N: N children that sleep, then sleeps itself
	"orphan":   orphan,   // orphan DURATION: a grandchild in a session of its own, left behind; then sleeps
	"log":      log,      // log N [SIZE]: N lines of SIZE bytes on stdout, every tenth on stderr
	"flood":    flood,    // flood N: N numbered lines of 100 bytes as fast as can be, then sleeps
	"tick":     tick,     // tick EVERY: numbered lines for ever
	"cat":      cat,      // cat FILE...
	"ls":       ls,       // ls PATH: mode uid gid name, one line an entry, recursively
	"write":    write,    // write FILE TEXT
	"env":      env,      // env: the environment, one variable a line
	"args":     echoArgs, // args ...: its arguments as JSON
	"id":       id,       // id: uid, gid and groups
	"stdin":    stdin,    // stdin: copies stdin to stdout, then says how much it was on stderr
	"try":      try,      // try chown|chroot|mknod|raw|keyctl|unshare|setuid, remount PATH: 0 if the kernel allows it
	"listen":   listen,   // listen ADDR: binds the address and ends
	"winsize":  winsize,  // winsize ROWS COLS: waits until the terminal has this size
	"alloc":    alloc,    // alloc MIB: touches so much memory, then sleeps
	"burn":     burn,     // burn N: keeps N threads busy for ever
	"forks":    forks,    // forks N: N children that sleep, or as many as the kernel allows; says how many
	"statfs":   statfs,   // statfs PATH: the size of the file system there in bytes
	"nofile":   nofile,   // nofile: the hard limit of open files; Go raises the soft one
	"tty":      tty,      // tty: says which of stdin, stdout and stderr are terminals, then reads stdin to its end
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "testapp: unknown command", os.Args[1:])
		os.Exit(64)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(1)
	}
}

func arg(args []string, i int, otherwise string) string {
	if i < len(args) {
		return args[i]
	}
	return otherwise
}

func number(args []string, i, otherwise int) int {
	n, err := strconv.Atoi(arg(args, i, strconv.Itoa(otherwise)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(64)
	}
	return n
}

func duration(args []string, i int) time.Duration {
	d, err := time.ParseDuration(arg(args, i, "0s"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(64)
	}
	return d
}

// serve answers "/" with a line of JSON that says who answered whom, "/id"
// with the replica's host name, "/version" with $VERSION, "/bytes?n=N&pause=D" with N
// bytes (pausing D after each 64 KiB), "/slow?d=D" after a while, "/health"
// with 200, or 503 while the file /tmp/unhealthy exists. POST /quit ends it.
// On SIGTERM it finishes the requests in hand.
func serve(args []string) error {
	for _, s := range []struct {
		port int
		run  func(port int) error
	}{{number(args, 1, 0), echoTCP}, {number(args, 2, 0), echoUDP}} {
		if s.port == 0 {
			continue
		}
		go func() { fmt.Fprintln(os.Stderr, "testapp:", s.run(s.port)); os.Exit(1) }()
	}
	return serveHTTP(number(args, 0, 80))
}

// sicken goes on answering all but "/health" as a healthy one does.
func sicken(args []string) error {
	time.AfterFunc(duration(args, 0), func() {
		fmt.Println("sick")
		if err := os.WriteFile(unhealthy, nil, 0o600); err != nil {
			fmt.Fprintln(os.Stderr, "testapp:", err)
		}
	})
	return serve(nil)
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "?"
	}
	return name
}

func echoTCP(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			fmt.Fprintln(c, hostname())
			_, _ = io.Copy(c, c)
		}()
	}
}

// echoUDP answers each datagram with "<host name> <datagram>".
func echoUDP(port int) error {
	c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(append([]byte(hostname()+" "), buf[:n]...), from); err != nil {
			fmt.Fprintln(os.Stderr, "testapp:", err)
		}
	}
}

func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Version", os.Getenv("VERSION"))
	_ = json.NewEncoder(w).Encode(map[string]string{
		"replica": hostname(), "client": r.RemoteAddr, "host": r.Host, "version": os.Getenv("VERSION"),
	})
}

func exit(args []string) error {
	time.Sleep(duration(args, 1))
	os.Exit(number(args, 0, 0))
	return nil
}

func sleep(args []string) error {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGQUIT)
	fmt.Println("ready") // until here, as process 1, it would not hear a signal
	select {
	case s := <-end:
		os.Exit(128 + int(s.(syscall.Signal)))
	case <-time.After(duration(args, 0)):
	}
	return nil
}

func stubborn([]string) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	fmt.Println("ready")
	for {
		time.Sleep(time.Hour) // not select {}: the runtime would call that a deadlock
	}
}

func self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

func spawn(args []string) error {
	for range number(args, 0, 1) {
		if err := self("sleep", "1h").Start(); err != nil {
			return err
		}
	}
	return sleep([]string{"1h"})
}

// orphan: its child starts the grandchild and ends, so that nobody is the
// grandchild's parent but process 1.
func orphan(args []string) error {
	if len(args) > 1 {
		cmd := self("sleep", args[0])
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	}
	if err := self("orphan", args[0], "child").Run(); err != nil {
		return err
	}
	return sleep(args)
}

func log(args []string) error {
	text := strings.Repeat("x", number(args, 1, 20))
	for i := range number(args, 0, 1) {
		to := os.Stdout
		if i%10 == 9 {
			to = os.Stderr
		}
		if _, err := fmt.Fprintf(to, "%d %s\n", i, text); err != nil {
			return err
		}
	}
	return nil
}

func flood(args []string) error {
	n, err := strconv.Atoi(arg(args, 0, "0"))
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	for i := range n {
		if _, err := fmt.Fprintf(w, "flood %09d %s\n", i, strings.Repeat("x", 83)); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}

func tick(args []string) error {
	for i := 0; ; i++ {
		if _, err := fmt.Println("tick", i); err != nil {
			return err
		}
		time.Sleep(duration(args, 0))
	}
}

func cat(args []string) error {
	for _, name := range args {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func write(args []string) error { return os.WriteFile(args[0], []byte(args[1]), 0o644) }

func env([]string) error {
	for _, kv := range os.Environ() {
		fmt.Println(kv)
	}
	return nil
}

func echoArgs(args []string) error { return json.NewEncoder(os.Stdout).Encode(args) }

func id([]string) error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	slices.Sort(groups)
	fmt.Printf("uid=%d gid=%d groups=%v\n", os.Getuid(), os.Getgid(), groups)
	return nil
}

func stdin([]string) error {
	n, err := io.Copy(os.Stdout, os.Stdin)
	fmt.Fprintln(os.Stderr, "bytes:", n)
	return err
}

func listen(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	return l.Close()
}

func alloc(args []string) error {
	b := bytes.Repeat([]byte{1}, number(args, 0, 1)<<20)
	fmt.Println("touched", len(b))
	fmt.Println("ready")
	return sleep([]string{"1h"})
}
