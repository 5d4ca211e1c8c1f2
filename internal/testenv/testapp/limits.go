package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func burn(args []string) error {
	for range number(args, 0, 1) {
		go func() {
			for x := uint64(1); x != 0; { // never 0: it is to use all the CPU that it gets
				x = x*6364136223846793005 | 1
			}
		}()
	}
	fmt.Println("ready")
	select {}
}

func forks(args []string) error {
	n := 0
	for range number(args, 0, 1) {
		if err := exec.Command("/proc/self/exe", "sleep", "10m").Start(); err != nil {
			fmt.Println("refused:", err)
			break
		}
		n++
	}
	fmt.Println("children", n)
	fmt.Println("ready")
	select {}
}

func statfs(args []string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(args[0], &st); err != nil {
		return err
	}
	fmt.Println(int64(st.Blocks) * st.Bsize)
	return nil
}

func nofile([]string) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	fmt.Println(l.Max)
	return nil
}

func tty([]string) error {
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		_, err := unix.IoctlGetTermios(i, unix.TCGETS)
		fmt.Println(name, err == nil)
	}
	fmt.Fprintln(os.Stderr, "an error")
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
