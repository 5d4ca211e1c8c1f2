package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxMessage is the longest message of a stream that a client takes. A log
// line arrives in parts far below it.
const maxMessage = 16 << 20

// handlers say what to do with the messages of a stream, by name. Names that a
// client doesn't know are left out: a newer agent may send more.
type handlers map[string]func(data []byte) error

// into makes a handler out of a function that takes the decoded message.
func into[T any](f func(T) error) func([]byte) error {
	return func(data []byte) error {
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return fmt.Errorf("decode the agent's message: %w", err)
		}
		return f(v)
	}
}

// errEnd is the end of a stream that ended well.
var errEnd = errors.New("end of stream")

// stream makes a request and handles the messages of the answer until it ends.
// An error that a handler returns is returned as it is.
func (c *Client) stream(ctx context.Context, method, path string, body io.Reader, h handlers) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	defer c.watch(ctx, giveUp)()
	resp, err := c.do(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h[messageEnd] = func([]byte) error { return errEnd }
	h[messageError] = into(func(e Error) error { return &e })

	r := bufio.NewReader(resp.Body)
	for {
		name, data, err := readMessage(r)
		if err != nil {
			return c.lost(ctx, err)
		}
		handle, ok := h[name]
		if !ok {
			continue
		}
		if err := handle(data); errors.Is(err, errEnd) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// readMessage reads one server-sent event. Every message of ours has its data
// in one line.
func readMessage(r *bufio.Reader) (name string, data []byte, err error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return "", nil, err
		}
		field, value, _ := bytes.Cut(line, []byte(": "))
		switch string(field) {
		case "event":
			name = string(value)
		case "data":
			data = value
		case "":
			if name != "" {
				return name, data, nil
			}
		}
	}
}

// readLine reads up to the next "\n", which it leaves out.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			return line[:len(line)-1], nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if len(line) > maxMessage {
			return nil, fmt.Errorf("the agent sent a message of more than %d bytes", maxMessage)
		}
	}
}
