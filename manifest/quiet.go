package manifest

import (
	"io"
	"sync"

	"github.com/sirupsen/logrus"
)

// logging guards the one logger of logrus, which compose-go writes warnings to.
var logging sync.Mutex

// warnings keeps what compose-go would print to the terminal.
type warnings struct{ texts []string }

// Levels makes warnings a logrus hook.
func (*warnings) Levels() []logrus.Level { return []logrus.Level{logrus.WarnLevel} }

// Fire keeps the text.
func (w *warnings) Fire(e *logrus.Entry) error {
	w.texts = append(w.texts, e.Message)
	return nil
}

func (w *warnings) drain() []string {
	t := w.texts
	w.texts = nil
	return t
}

// quietly runs f while compose-go's warnings go to the returned collector
// instead of the terminal. Loads wait for each other meanwhile.
func quietly(f func(*warnings)) {
	logging.Lock()
	defer logging.Unlock()
	w := &warnings{}
	log := logrus.StandardLogger()
	out := log.Out
	hooks := log.ReplaceHooks(logrus.LevelHooks{logrus.WarnLevel: {w}})
	log.SetOutput(io.Discard)
	defer func() {
		log.SetOutput(out)
		log.ReplaceHooks(hooks)
	}()
	f(w)
}
