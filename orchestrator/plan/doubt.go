package plan

import (
	"slices"
	"strings"

	"dunnage/spec"
)

// doubt says that an image, given by its digest or with it, is in doubt; "" = it
// isn't.
func doubt(doubtful []spec.DoubtfulImage, image string) string {
	_, dgst, pinned := strings.Cut(image, "@")
	if !pinned {
		dgst = image
	}
	i := slices.IndexFunc(doubtful, func(d spec.DoubtfulImage) bool { return d.Digest == dgst || d.Digest == "" })
	switch {
	case i < 0:
		return ""
	case doubtful[i].Error != "":
		return "its image was damaged when the power was cut, and couldn't be mended"
	default:
		return "its image is being verified since the power was cut"
	}
}
