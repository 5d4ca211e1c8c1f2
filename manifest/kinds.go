package manifest

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

// shape is the set of YAML values that may stand at a key.
type shape uint16

const (
	shapeMap shape = 1 << iota
	shapeList
	shapeText
	shapeInt
	shapeFloat
	shapeBool
	shapeNull
	shapeAny
)

// shapeNames are in the order of messages.
var shapeNames = []struct {
	shape shape
	name  string
}{
	{shapeText, "a text"}, {shapeInt, "a whole number"}, {shapeFloat, "a number"},
	{shapeBool, "true or false"}, {shapeList, "a list"}, {shapeMap, "a mapping"},
}

func (s shape) String() string {
	var names []string
	for _, n := range shapeNames {
		if s&n.shape != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " or ")
}

// of is the shape of what stands there.
func shapeOf(t *tree) shape {
	switch t.kind {
	case yaml.MappingNode:
		return shapeMap
	case yaml.SequenceNode:
		return shapeList
	}
	switch t.tag {
	case "!!int":
		return shapeInt
	case "!!float":
		return shapeFloat
	case "!!bool":
		return shapeBool
	case "!!null":
		return shapeNull
	}
	return shapeText
}

// check judges a scalar as it is after interpolation. It returns a *problem.
type check func(value string) error

// kind is a shape with a check.
type kind struct {
	shape shape
	check check
}

const (
	textOrInt = shapeText | shapeInt
	scalar    = shapeText | shapeInt | shapeFloat | shapeBool
)

var (
	kindAny           = kind{shape: shapeAny}
	kindMap           = kind{shape: shapeMap}
	kindMapOrNull     = kind{shape: shapeMap | shapeNull}
	kindList          = kind{shape: shapeList}
	kindText          = kind{shape: shapeText}
	kindTextList      = kind{shape: shapeList}
	kindTextOrList    = kind{shape: shapeText | shapeList}
	kindTextOrMap     = kind{shape: shapeText | shapeMap}
	kindTextListOrMap = kind{shape: shapeList | shapeMap}
	kindCommand       = kind{shapeText | shapeList | shapeNull, checkShellWords}
	kindScalar        = kind{shape: scalar | shapeNull}
	kindBool          = kind{shapeBool | shapeText, checkBool}
	kindFalse         = kind{shapeBool | shapeText, checkFalse}
	kindCount         = kind{textOrInt, checkCount}
	kindSize          = kind{textOrInt, checkSize}
	kindMode          = kind{textOrInt, checkMode}
	kindDuration      = kind{shapeText, checkDuration}
	kindPeriod        = kind{shapeText, checkPeriod}
	kindPortItem      = kind{textOrInt | shapeMap, checkPortItem}
	kindPortNumber    = kind{textOrInt, checkPortNumber}
	kindPublished     = kind{textOrInt, checkPublished}
	kindExpose        = kind{textOrInt, checkExpose}
	kindIP            = kind{shapeText, checkIP}
	kindPrefix        = kind{shapeText, checkPrefix}
	kindProtocol      = kind{shapeText, checkProtocol}
	kindRestart       = kind{shapeText, checkRestart}
	kindSignal        = kind{textOrInt, checkSignal}
	kindCapability    = kind{shapeText, checkCapability}
	kindTmpfs         = kind{shapeText, checkTmpfs}
	kindUlimit        = kind{textOrInt | shapeMap, checkUlimit}
	kindUlimitNumber  = kind{textOrInt, checkUlimit}
	kindVolumeItem    = kind{shapeText | shapeMap, checkVolumeItem}
	kindAbsolute      = kind{shapeText, checkAbsolute}
	kindHostname      = kind{shapeText, checkHostname}
	kindImage         = kind{shapeText, checkImage}
	kindEnvItem       = kind{shapeText, checkEnvItem}
	kindURLPath       = kind{shapeText, checkURLPath}
)

func kindEnum(values ...string) kind {
	return kind{shapeText, func(v string) error {
		for _, ok := range values {
			if v == ok {
				return nil
			}
		}
		return refuse("", "%q isn't one of %s", clip(v), strings.Join(values, ", "))
	}}
}

func kindIdentifier(what string) kind {
	return kind{shapeText, func(v string) error {
		if !identifier.MatchString(v) {
			return refuse("", "%q isn't a valid %s: use letters, digits, `_`, `.` and `-`, a letter or digit first", clip(v), what)
		}
		return nil
	}}
}
