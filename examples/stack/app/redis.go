package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// redisInteger sends one command on a connection of its own and reads the
// integer that it answers. The protocol is RESP: an array of bulk strings there,
// ":<number>" or "-<error>" back.
func redisInteger(ctx context.Context, addr string, command ...string) (int64, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, err
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(command))
	for _, word := range command {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 0, err
	}
	line = strings.TrimSpace(line)
	if n, ok := strings.CutPrefix(line, ":"); ok {
		return strconv.ParseInt(n, 10, 64)
	}
	return 0, fmt.Errorf("redis answered %q", line)
}
