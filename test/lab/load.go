package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"dunnage/test/load"
)

// Traffic is a load generator that runs on the lab's client.
type Traffic struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

// StartTraffic starts program, the load generator, with c; it goes on until
// Stop, or for c.Duration.
func (l *Lab) StartTraffic(program string, c load.Config) (*Traffic, error) {
	argv := l.OnClient(program, "-json",
		"-addr", c.Addr,
		"-duration", c.Duration.String(),
		"-realtime="+strconv.FormatBool(c.Realtime),
		"-rate", strconv.Itoa(c.Rate),
		"-keepalive", strconv.Itoa(c.KeepAlive),
		"-downloads", strconv.Itoa(c.Downloads),
		"-download-path", c.DownloadPath,
		"-download-bytes", strconv.FormatInt(c.DownloadBytes, 10))
	t := &Traffic{cmd: exec.Command(argv[0], argv[1:]...)}
	t.cmd.Stdout, t.cmd.Stderr = &t.out, os.Stderr
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	return t, nil
}

// Stop ends the asking and returns the report, when what is in flight is done.
func (t *Traffic) Stop() (load.Report, error) {
	if err := t.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return load.Report{}, fmt.Errorf("stop load: %w", err)
	}
	return t.Wait()
}

// Wait awaits the end of a load with a Duration.
func (t *Traffic) Wait() (load.Report, error) {
	exit := t.cmd.Wait() // 1 says that requests failed, and the report says which
	var rep load.Report
	if err := json.Unmarshal(t.out.Bytes(), &rep); err != nil {
		return rep, fmt.Errorf("read the load's report: %w (%v)", err, exit)
	}
	return rep, nil
}
