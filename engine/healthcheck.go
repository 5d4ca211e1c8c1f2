package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"dunnage/spec"
)

// Healthcheck is the image's HEALTHCHECK as a probe, nil if it has none.
func (e *Engine) Healthcheck(ctx context.Context, dgst string) (*spec.Probe, error) {
	s, err := e.toRun(ctx, dgst)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", dgst, err)
	}
	return s.health, nil
}

// dockerConfig is what Docker adds to an image's configuration. The OCI's
// specification doesn't know it, and lets it stand.
type dockerConfig struct {
	Config struct {
		Healthcheck struct {
			Test                                          []string
			Interval, Timeout, StartPeriod, StartInterval time.Duration
			Retries                                       int
		}
		Shell []string
	} `json:"config"`
}

// Docker's times where the image says none.
const (
	healthTime    = 30 * time.Second // interval and timeout
	healthRetries = 3
)

// imageHealth reads the check out of an image's configuration.
func imageHealth(config []byte) (*spec.Probe, error) {
	var c dockerConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	h := c.Config.Healthcheck
	var command []string
	switch {
	case len(h.Test) < 2: // none, or NONE
		return nil, nil
	case h.Test[0] == "CMD":
		command = h.Test[1:]
	case h.Test[0] == "CMD-SHELL":
		shell := c.Config.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		command = slices.Concat(shell, h.Test[1:2])
	default:
		return nil, nil // of a kind that Docker ignores too
	}
	return &spec.Probe{
		Kind: spec.ProbeExec, Command: command,
		Interval: spec.Duration(cmp.Or(max(h.Interval, 0), healthTime)), Timeout: spec.Duration(cmp.Or(max(h.Timeout, 0), healthTime)),
		StartPeriod: spec.Duration(max(h.StartPeriod, 0)), StartInterval: spec.Duration(max(h.StartInterval, 0)),
		Retries: cmp.Or(max(h.Retries, 0), healthRetries),
	}, nil
}
