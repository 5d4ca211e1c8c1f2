package testenv

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// File is an entry of an image's layer. Mode holds the permission and set-id
// bits; Link makes a symlink, Hard a hard link, Char a character device, a Path
// that ends in "/" a directory.
type File struct {
	Path     string
	Mode     int64
	UID, GID int
	Body     []byte
	Link     string
	Hard     string
	Char     [2]int64 // major and minor number
	Xattrs   map[string]string
}

// ImageSpec describes an image. Each element of Layers is one layer; where
// Empty isn't set, one with testapp at /testapp and a passwd file with root
// and app (uid 1000, gid 1000, also in group extra, 2000) comes first.
type ImageSpec struct {
	Empty        bool
	Layers       [][]File
	Config       v1.Config
	Architecture string // default: this machine's
}

// passwd and group are the users that images of tests have.
const (
	passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n"
	group  = "root:x:0:\napp:x:1000:\nextra:x:2000:app\n"
)

// Image builds an image.
func Image(t testing.TB, s ImageSpec) v1.Image {
	t.Helper()
	layers := s.Layers
	if !s.Empty {
		layers = append([][]File{baseLayer(t)}, layers...)
	}
	img := empty.Image
	for _, files := range layers {
		layer, err := tarball.LayerFromOpener(opener(t, files))
		if err == nil {
			img, err = mutate.AppendLayers(img, layer)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Config = s.Config
	config.OS, config.Architecture = "linux", runtime.GOARCH
	if s.Architecture != "" {
		config.Architecture = s.Architecture
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// AppImage is the image of most tests: testapp as the entrypoint, "serve" as
// the command, VERSION in the environment, so that two versions differ.
func AppImage(t testing.TB, version string) v1.Image {
	t.Helper()
	return Image(t, ImageSpec{Config: v1.Config{
		Entrypoint: []string{"/testapp"}, Cmd: []string{"serve"}, Env: []string{"VERSION=" + version},
	}})
}

// Archive writes the images as `docker save` does, by reference.
func Archive(t testing.TB, images map[string]v1.Image) io.Reader {
	t.Helper()
	refs := make(map[name.Reference]v1.Image, len(images))
	for ref, img := range images {
		r, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		refs[r] = img
	}
	var b bytes.Buffer
	if err := tarball.MultiRefWrite(refs, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func baseLayer(t testing.TB) []File {
	return []File{
		{Path: "etc/passwd", Mode: 0o644, Body: []byte(passwd)},
		{Path: "etc/group", Mode: 0o644, Body: []byte(group)},
		{Path: "tmp/", Mode: 0o1777},
		{Path: "testapp", Mode: 0o755, Body: TestApp(t)},
	}
}

func opener(t testing.TB, files []File) tarball.Opener {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Path, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Size: int64(len(f.Body)), ModTime: time.Unix(1700000000, 0), Format: tar.FormatPAX}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		case f.Hard != "":
			h.Typeflag, h.Linkname = tar.TypeLink, f.Hard
		case f.Char != [2]int64{}:
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, f.Char[0], f.Char[1]
		case f.Path[len(f.Path)-1] == '/':
			h.Typeflag = tar.TypeDir
		default:
			h.Typeflag = tar.TypeReg
		}
		for k, v := range f.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
}

// TestApp is the static program of internal/testenv/testapp, built once a test run.
func TestApp(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(Program(t, "./internal/testenv/testapp"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	programs   = make(map[string]string)
	programsMu sync.Mutex
)

// Program builds a command of this module, for example "./cmd/dunnage-log",
// once a test run, and returns its path.
func Program(t testing.TB, pkg string) string {
	t.Helper()
	programsMu.Lock()
	defer programsMu.Unlock()
	if path, ok := programs[pkg]; ok {
		return path
	}
	path, err := build(pkg)
	if err != nil {
		t.Fatal(err)
	}
	programs[pkg] = path
	return path
}

// build makes a static program in build/test of the checkout. It gets there by
// a rename, because another package's tests may be running the earlier one.
func build(pkg string) (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("find the module: no caller")
	}
	module := filepath.Join(filepath.Dir(file), "..", "..")
	dir := filepath.Join(module, "build", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", tmp, pkg)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, os.Rename(tmp, path)
}
