package inside

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// notFound: there is no such program.
type notFound struct{ name string }

func (e notFound) Error() string { return "no program " + e.name + " in the PATH of the container" }

// LookPath finds a program as a shell does. It isn't os/exec's, which costs
// more than all the rest of this package.
func LookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range strings.Split(os.Getenv("PATH"), ":") {
		path := dir + "/" + name
		if dir == "" {
			path = "./" + name
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", notFound{name}
}
