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
	what  string // for messages, where the shape's name would mislead
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
	kindTextListMap   = kind{shape: shapeText | shapeList | shapeMap}
	kindTextOrMap     = kind{shape: shapeText | shapeMap}
	kindTextListOrMap = kind{shape: shapeList | shapeMap}
	kindCommand       = kind{shape: shapeText | shapeList | shapeNull, check: checkShellWords}
	kindScalar        = kind{shape: scalar | shapeNull}
	kindBool          = kind{shape: shapeBool | shapeText, check: checkBool, what: "true or false"}
	kindFailed        = kind{shape: textOrInt, check: checkFailed, what: "a whole number"}
	kindCount         = kind{shape: textOrInt, check: checkCount, what: "a whole number"}
	kindSize          = kind{shape: textOrInt, check: checkSize, what: "a size, such as 64m"}
	kindMode          = kind{shape: textOrInt, check: checkMode, what: "a file mode, such as 0700"}
	kindDuration      = kind{shape: shapeText, check: checkDuration, what: "a duration, such as 10s"}
	kindHold          = kind{shape: shapeText, check: checkHold, what: "a duration, such as 10s"}
	kindKeepWarm      = kind{shape: shapeText, check: checkKeepWarm, what: "a duration, such as 10m"}
	kindDisk          = kind{shape: textOrInt, check: checkDisk, what: "a size, such as 2G"}
	kindPeriod        = kind{shape: shapeText, check: checkPeriod, what: "a duration, such as 10s"}
	kindPortItem      = kind{shape: textOrInt | shapeMap, check: checkPortItem}
	kindPortNumber    = kind{shape: textOrInt, check: checkPortNumber, what: "a port"}
	kindPublished     = kind{shape: textOrInt, check: checkPublished, what: "a port or a range of ports"}
	kindExpose        = kind{shape: textOrInt, check: checkExpose}
	kindIP            = kind{shape: shapeText, check: checkIP}
	kindPrefix        = kind{shape: shapeText, check: checkPrefix}
	kindProtocol      = kind{shape: shapeText, check: checkProtocol}
	kindRestart       = kind{shape: shapeText, check: checkRestart}
	kindSignal        = kind{shape: textOrInt, check: checkSignal, what: "a signal"}
	kindCapability    = kind{shape: shapeText, check: checkCapability}
	kindTmpfs         = kind{shape: shapeText, check: checkTmpfs}
	kindUlimit        = kind{shape: textOrInt | shapeMap, check: checkUlimit}
	kindUlimitNumber  = kind{shape: textOrInt, check: checkUlimit, what: "a whole number"}
	kindVolumeItem    = kind{shape: shapeText | shapeMap, check: checkVolumeItem}
	kindAbsolute      = kind{shape: shapeText, check: checkAbsolute}
	kindHostname      = kind{shape: shapeText, check: checkHostname}
	kindImage         = kind{shape: shapeText, check: checkImage}
	kindEnvItem       = kind{shape: shapeText, check: checkEnvItem}
	kindLabelItem     = kind{shape: shapeText, check: checkLabelItem}
	kindUser          = kind{shape: shapeText, check: checkUser, what: "a user, such as 1000:1000 or nobody"}
	kindContainerName = kind{shape: shapeText, check: checkContainerName}
	kindRatio         = kind{shape: shapeText | shapeInt | shapeFloat, check: checkRatio, what: "a number from 0 to 1"}
	kindDeployMode    = kind{shape: shapeText, check: checkDeployMode}
	kindEndpointMode  = kind{shape: shapeText, check: checkEndpointMode}
	kindConstraint    = kind{shape: shapeText, check: checkConstraint}
	kindPercent       = kind{shape: textOrInt, check: checkPercent, what: "a whole number"}
	kindReplicas      = kind{shape: textOrInt, check: checkReplicas, what: "a whole number"}
	kindPullPolicy    = kind{shape: shapeText, check: checkPullPolicy}
	kindPlatform      = kind{shape: shapeText, check: checkPlatform}
	kindLink          = kind{shape: shapeText, check: checkLink}
	kindPath          = kind{shape: shapeText, check: checkFilled}
	kindOption        = kind{shape: scalar, check: checkFilled}
	kindURLPath       = kind{shape: shapeText, check: checkURLPath}
)

func kindEnum(values ...string) kind {
	return kind{shape: shapeText, check: func(v string) error {
		for _, ok := range values {
			if v == ok {
				return nil
			}
		}
		return refuse("", "%q isn't one of %s", clip(v), strings.Join(values, ", "))
	}}
}

func kindIdentifier(what string) kind {
	return kind{shape: shapeText, check: func(v string) error {
		if !identifier.MatchString(v) {
			return refuse("", "%q isn't a valid %s: use letters, digits, `_`, `.` and `-`, a letter or digit first", clip(v), what)
		}
		return nil
	}}
}
