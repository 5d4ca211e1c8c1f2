package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dunnage/spec"
)

const (
	verifyLimit = 15 * time.Minute // for one image; a gigabyte takes some ten seconds
	verifyAgain = time.Minute      // after which what couldn't be mended is tried again
	verifySoon  = time.Second      // where only containerd didn't answer
)

// verifyImages mends the images that a power cut may have damaged, one after the
// other, beside the loop: it holds up nothing but what needs them. There are
// none that weren't there when the agent started, so it ends.
func (l *Loop) verifyImages() {
	select {
	case <-l.Acting(): // to mend is to change
	case <-l.ctx.Done():
		return
	}
	told := map[string]string{}
	for {
		pause := verifySoon
		for _, d := range l.cfg.Images.Doubtful() {
			if err := l.verifyImage(d, told); err != nil && !errors.Is(err, spec.ErrUnavailable) {
				pause = verifyAgain
			}
		}
		if len(l.cfg.Images.Doubtful()) == 0 {
			return
		}
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// verifyImage tells what came of it; a failure once for each cause.
func (l *Loop) verifyImage(d spec.DoubtfulImage, told map[string]string) error {
	ctx, cancel := context.WithTimeout(l.ctx, verifyLimit)
	defer cancel()
	defer l.Look()
	began := time.Now()
	mended, err := l.cfg.Images.Verify(ctx, d.Digest)
	switch {
	case l.ctx.Err() != nil || errors.Is(err, spec.ErrUnavailable):
	case err != nil && told[d.Digest] != err.Error():
		told[d.Digest] = err.Error()
		text := "an image is damaged since the power was cut"
		if d.Digest == "" {
			text = "list the images that a power cut may have damaged"
		}
		l.cfg.Log.Error(text, "image", d.Ref, "digest", d.Digest, "error", err)
		l.events.add(spec.Event{Kind: spec.EventProblem, Message: damagedImage(d.Ref, plain(err))})
	case d.Digest == "": // now they are listed
		if len(mended) > 0 {
			l.events.add(spec.Event{Kind: spec.EventRepaired, Message: strings.Join(mended, "; ")})
		}
	case err == nil && len(mended) > 0:
		text := fmt.Sprintf("image %s was damaged when the power was cut, and is mended: %s", d.Ref, strings.Join(mended, "; "))
		l.cfg.Log.Warn(text, "digest", d.Digest, "took", time.Since(began))
		l.events.add(spec.Event{Kind: spec.EventRepaired, Message: text})
	case err == nil:
		l.cfg.Log.Info("an image that came soon before the power was cut is whole", "image", d.Ref, "digest", d.Digest, "took", time.Since(began))
	}
	return err
}

// doubts says of each image in doubt what becomes of it.
func doubts(images []spec.DoubtfulImage) []string {
	var out []string
	for _, d := range images {
		switch {
		case d.Digest == "":
			out = append(out, "all images are verified, because the notes of those that came lately can't be read (the agent's log says why); what needs one starts after that")
		case d.Error != "":
			out = append(out, damagedImage(d.Ref, d.Error))
		default:
			out = append(out, fmt.Sprintf("image %s is being verified, because the power was cut soon after it came; what needs it starts after that", d.Ref))
		}
	}
	return out
}

func damagedImage(ref, cause string) string {
	if ref == "" {
		return fmt.Sprintf("nothing is started, since it can't be told which images a power cut may have damaged: %s; put that right, the agent tries again every minute", cause)
	}
	return fmt.Sprintf("image %s can't be used, and what needs it doesn't start: %s; `dunnage image pull %s`, or `dunnage image load FILE` without a registry, mends it at once, and the agent tries again every minute", ref, cause, ref)
}
