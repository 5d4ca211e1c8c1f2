package manifest

import (
	"strconv"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

var kindLogDriver = kind{shape: shapeText, check: checkLogDriver}

func checkLogDriver(v string) error {
	switch v {
	case "", "json-file", "local":
		return nil
	case "none":
		return refuse("Bound the log with max-size and max-file instead", "the output of every container is kept, so that a failure can be read")
	}
	return refuse("Remove it, and let a collector read dunnage's log files or dunnage logs -f --json", "dunnage writes the logs itself and has no driver %q", clip(v))
}

// logging reads the options of the log, of which the walk has checked the driver.
func (c *converter) logging(name string, in *types.LoggingConfig) spec.Logging {
	var l spec.Logging
	if in == nil {
		return l
	}
	for _, k := range sorted(in.Options) {
		var p *problem
		v := in.Options[k]
		switch k {
		case "max-size":
			size, err := parseSize(v)
			if l.MaxSize = size; err != nil || size == 0 {
				p = refuse("Write it as 10m", "%q isn't the size of a log file", clip(v))
			}
		case "max-file":
			n, err := strconv.Atoi(v)
			if l.MaxFile = n; err != nil || n < 1 || n > maxLogFiles {
				p = refuse("Write it as 3", "%q isn't a number of log files from 1 to %d", clip(v), maxLogFiles)
			}
		default:
			p = refuse("Use max-size and max-file, and remove the others", "dunnage's log has no option %q", clip(k))
		}
		if p != nil {
			c.failAt(p, "services", name, "logging", "options", k)
		}
	}
	return l
}

const maxLogFiles = 1000

type composeLogging struct {
	Options ordered[string] `yaml:"options"`
}

func encodeLogging(l spec.Logging) *composeLogging {
	var out composeLogging
	if l.MaxSize > 0 {
		out.Options = append(out.Options, pair[string]{"max-size", strconv.FormatInt(l.MaxSize, 10)})
	}
	if l.MaxFile > 0 {
		out.Options = append(out.Options, pair[string]{"max-file", strconv.Itoa(l.MaxFile)})
	}
	if out.Options == nil {
		return nil
	}
	return &out
}
