package engine

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// testRegistry is a registry on loopback whose answers can be spoiled.
type testRegistry struct {
	host    string
	backend http.Handler
	spoil   atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool] // true: answered
	asked   atomic.Int64
}

func newRegistry(t *testing.T) *testRegistry {
	t.Helper()
	tr := &testRegistry{backend: startRegistry(t)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.asked.Add(1)
		if spoil := tr.spoil.Load(); spoil != nil && (*spoil)(w, r) {
			return
		}
		tr.backend.ServeHTTP(w, r)
	}))
	t.Cleanup(server.CloseClientConnections)
	t.Cleanup(server.Close)
	tr.host = strings.TrimPrefix(server.URL, "http://")
	return tr
}

// startRegistry runs Debian's registry on loopback and returns a way to it.
func startRegistry(t *testing.T) http.Handler {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, address)
	if err := os.WriteFile(dir+"/config.yml", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", dir+"/config.yml")
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a registry (apt install docker-registry): %v", err)
	}
	t.Cleanup(func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	return httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
}

func (r *testRegistry) behave(f func(w http.ResponseWriter, r *http.Request) bool) {
	if f == nil {
		r.spoil.Store(nil)
		return
	}
	r.spoil.Store(&f)
}

func (r *testRegistry) push(t *testing.T, ref string, img v1.Image) string {
	t.Helper()
	full, err := name.ParseReference(r.host+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(full, img); err != nil {
		t.Fatal(err)
	}
	return r.host + "/" + ref
}

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

func TestPull(t *testing.T) {
	b := newBench(t)
	reg := newRegistry(t)
	ref := reg.push(t, "team/app:1", testenv.AppImage(t, "1"))
	var mu sync.Mutex
	states := map[string]bool{}
	pinned, err := b.Pull(b.ctx, ref, func(p spec.PullProgress) {
		mu.Lock()
		defer mu.Unlock()
		states[p.State] = true
		if p.Image != ref {
			t.Errorf("progress of %q", p.Image)
		}
	})
	if err != nil || pinned.Ref != ref || !strings.HasPrefix(pinned.Digest, "sha256:") || pinned.Size == 0 {
		t.Fatalf("%+v, %v", pinned, err)
	}
	for _, s := range []string{"resolving", "waiting", "done", "unpacking", "ready"} {
		if !states[s] {
			t.Errorf("state %q was not reported: %v", s, states)
		}
	}
	asked := reg.asked.Load()
	again, err := b.Pull(b.ctx, pinned.Pinned(), nil)
	if err != nil || again != pinned || reg.asked.Load() != asked {
		t.Errorf("by digest: %+v, %v, %d requests", again, err, reg.asked.Load()-asked)
	}
	// The tag moves: the release's image stays usable, the tag means the new one.
	if err := b.Retain(b.ctx, "p/1", []spec.PinnedImage{pinned}); err != nil {
		t.Fatal(err)
	}
	reg.push(t, "team/app:1", testenv.AppImage(t, "2"))
	moved, err := b.Pull(b.ctx, ref, nil)
	if err != nil || moved.Digest == pinned.Digest {
		t.Fatalf("%+v, %v", moved, err)
	}
	b.run(request(pinned, 1, "serve", "8080"))
	if found, err := b.Resolve(b.ctx, ref); err != nil || found.Digest != moved.Digest {
		t.Errorf("%+v, %v", found, err)
	}
	list, err := b.ListImages(b.ctx)
	if err != nil || len(list) != 1 || list[0].Ref != ref || list[0].Size == 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestRetain(t *testing.T) {
	b := newBench(t)
	image := b.app()
	if err := b.Retain(b.ctx, "p/1", []spec.PinnedImage{image}); err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveImage(b.ctx, appRef); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "p/1") {
		t.Errorf("remove a retained image: %v", err)
	}
	if err := b.client.ImageService().Delete(b.ctx, image.Ref); err != nil { // by another's tool
		t.Fatal(err)
	}
	b.run(request(image, 1, "serve", "8080")) // a rollback works offline
	if err := b.Remove(b.ctx, request(image, 1, "serve", "8080").ID); err != nil {
		t.Fatal(err)
	}
	b.app()
	if names, err := b.Retained(b.ctx); err != nil || !slices.Equal(names, []string{"p/1"}) {
		t.Errorf("retained: %q, %v", names, err)
	}
	for range 2 {
		if err := b.Retain(b.ctx, "p/1", nil); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := b.Retained(b.ctx); err != nil || len(names) > 0 {
		t.Errorf("retained: %q, %v", names, err)
	}
	if err := b.RemoveImage(b.ctx, appRef); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Resolve(b.ctx, image.Pinned()); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("after removal: %v", err)
	}
}

// TestPullFailures: each failure says what it is and what to do.
func TestPullFailures(t *testing.T) {
	b := newBench(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.cfg.PullIdle = 300 * time.Millisecond
	b.connect()
	reg := newRegistry(t)
	ref := reg.push(t, "app:1", testenv.AppImage(t, "1"))
	other := reg.push(t, "other:1", testenv.Image(t, testenv.ImageSpec{Architecture: "s390x"}))
	index := reg.pushIndex(t, "index:1")
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := down.Addr().String()
	if err := down.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, ref string
		behave    func(w http.ResponseWriter, r *http.Request) bool
		kind      error
		says      string
	}{
		{"no such image", reg.host + "/none:1", nil, spec.ErrNotFound, "check name, tag and digest"},
		{"bad reference", "UPPER/case:x:y", nil, spec.ErrRefused, "UPPER/case"},
		{"refused", ref, func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}, spec.ErrRefused, "docker login " + reg.host},
		{"forbidden", ref, func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true }, spec.ErrRefused, "docker login"},
		{"broken", ref, func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }, spec.ErrUnavailable, "problem of its own"},
		{"stalled", ref, func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(r) {
				return false
			}
			w.Header().Set("Content-Length", "100000000")
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		}, spec.ErrUnavailable, "sent nothing for 300ms"},
		{"wrong content", ref, func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(r) {
				return false
			}
			good := httptest.NewRecorder()
			reg.backend.ServeHTTP(good, r)
			_, _ = w.Write(bytes.Repeat([]byte("x"), good.Body.Len())) // the client notices
			return true
		}, spec.ErrRefused, "damaged"},
		{"down", closed + "/app:1", nil, spec.ErrUnavailable, "can registry " + closed + " be reached"},
		{"platform", other, nil, spec.ErrRefused, "is for linux/s390x, this machine is linux/amd64"},
		{"index without this platform", index, nil, spec.ErrRefused, "is for linux/s390x, linux/ppc64le, this machine is linux/amd64"},
		{"wrong digest", reg.host + "/app@sha256:" + strings.Repeat("0", 64), nil, spec.ErrNotFound, "digest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg.behave(c.behave)
			defer reg.behave(nil)
			_, err := b.Pull(b.ctx, c.ref, nil)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error: %v", err)
			}
		})
	}
	if list, err := b.ListImages(b.ctx); err != nil || len(list) != 0 {
		t.Errorf("images: %v %v", list, err)
	}
	if _, err := b.Pull(b.ctx, ref, nil); err != nil { // nothing of it sticks
		t.Fatal(err)
	}
}

func (r *testRegistry) pushIndex(t *testing.T, ref string) string {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"s390x", "ppc64le"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        testenv.Image(t, testenv.ImageSpec{Architecture: arch}),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	full, err := name.ParseReference(r.host+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(full, index); err != nil {
		t.Fatal(err)
	}
	return r.host + "/" + ref
}

// TestPullsShareALayer: a pull that waits for what another one downloads isn't
// taken for one whose registry is silent.
func TestPullsShareALayer(t *testing.T) {
	b := newBench(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.cfg.PullIdle = 2 * time.Second
	b.connect()
	reg := newRegistry(t)
	img := testenv.AppImage(t, "1")
	refs := []string{reg.push(t, "one:1", img), reg.push(t, "two:1", img)}
	reg.behave(func(w http.ResponseWriter, r *http.Request) bool {
		if !isBlob(r) {
			return false
		}
		whole := httptest.NewRecorder()
		reg.backend.ServeHTTP(whole, r)
		body := whole.Body.Bytes()
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		for part := range slices.Chunk(body, len(body)/50+1) { // takes longer than silence may
			_, _ = w.Write(part) // the client may have gone
			w.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
		return true
	})
	var wg sync.WaitGroup
	for _, ref := range refs {
		wg.Go(func() {
			if _, err := b.Pull(b.ctx, ref, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestPullBreaks: a registry that drops connections in mid-layer is survived.
func TestPullBreaks(t *testing.T) {
	b := newBench(t)
	reg := newRegistry(t)
	ref := reg.push(t, "app:1", testenv.AppImage(t, "1"))
	var broken atomic.Int64
	reg.behave(func(w http.ResponseWriter, r *http.Request) bool {
		if !isBlob(r) || broken.Add(1) > 4 {
			return false
		}
		reg.backend.ServeHTTP(&cutWriter{ResponseWriter: w, left: 100}, r)
		return true
	})
	if _, err := b.Pull(b.ctx, ref, nil); err != nil {
		t.Fatal(err)
	}
	if broken.Load() == 0 {
		t.Error("nothing was broken")
	}
}

// TestPullDamaged: what the disk has damaged of an image is fetched again, by
// tag and by digest, although containerd takes it for stored.
func TestPullDamaged(t *testing.T) {
	b := newBench(t)
	reg := newRegistry(t)
	ref := reg.push(t, "app:1", testenv.AppImage(t, "1"))
	pinned, err := b.Pull(b.ctx, ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Retain(b.ctx, "p/1", []spec.PinnedImage{pinned}); err != nil {
		t.Fatal(err)
	}
	stored, err := b.storedByDigest(b.ctx, pinned.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range []ocispec.Descriptor{stored.target, stored.manifest.Config} {
		path := filepath.Join(b.daemon.Dir, "root/io.containerd.content.v1.content/blobs/sha256", blob.Digest.Encoded())
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		garbled := bytes.Replace(whole, []byte("sha256:"), []byte("sha257:"), 1) // still JSON
		for name, damaged := range map[string][]byte{"zeros": make([]byte, len(whole)), "garbled": garbled, "cut off": whole[:100], "empty": {}, "gone": nil} {
			for _, by := range []string{ref, pinned.Pinned()} {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				words := "not found"
				if damaged != nil {
					words = "is damaged in containerd's content store"
					if err := os.WriteFile(path, damaged, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := b.Resolve(b.ctx, ref); !errors.Is(err, spec.ErrNotFound) || !strings.Contains(err.Error(), words) {
					t.Errorf("%s %s, resolved: %v", blob.MediaType, name, err)
				}
				if again, err := b.Pull(b.ctx, by, nil); err != nil || again.Digest != pinned.Digest {
					t.Fatalf("%s %s, pulled as %s: %+v, %v", blob.MediaType, name, by, again, err)
				}
				if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, whole) {
					t.Fatalf("%s %s, pulled as %s: still damaged, %v", blob.MediaType, name, by, err)
				}
			}
		}
	}
	b.run(request(pinned, 1, "serve", "8080"))
}

// cutWriter breaks the connection after some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left]) // broken anyway
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

// TestPullCredentials: Docker's file and hosts.toml are used.
func TestPullCredentials(t *testing.T) {
	b := newBench(t)
	reg := newRegistry(t)
	ref := reg.push(t, "app:1", testenv.AppImage(t, "1"))
	auth := base64.StdEncoding.EncodeToString([]byte("user:secret"))
	reg.behave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Basic "+auth {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	if _, err := b.Pull(b.ctx, ref, nil); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("without credentials: %v", err)
	}
	b.write(filepath.Join(b.cfg.DockerConfig, "config.json"), fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.host, auth))
	if _, err := b.Pull(b.ctx, ref, nil); err != nil {
		t.Errorf("with credentials: %v", err)
	}
	// A mirror by hosts.toml: the name stays, the packets go elsewhere.
	reg.behave(nil)
	b.write(filepath.Join(b.cfg.HostsDir, "images.example.org", "hosts.toml"), fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+reg.host))
	pinned, err := b.Pull(b.ctx, "images.example.org/app:1", nil)
	if err != nil || pinned.Ref != "images.example.org/app:1" {
		t.Errorf("by a mirror: %+v, %v", pinned, err)
	}
}

func (b *bench) write(path, body string) {
	b.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(body), 0o600)); err != nil {
		b.t.Fatal(err)
	}
}

func TestCanonical(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	for ref, want := range map[string][2]string{
		"nginx":                     {"docker.io/library/nginx:latest", ""},
		"team/app:2":                {"docker.io/team/app:2", ""},
		"localhost:5000/app":        {"localhost:5000/app:latest", ""},
		"nginx@" + d:                {"docker.io/library/nginx", d},
		"nginx:1.27@" + d:           {"docker.io/library/nginx:1.27", d},
		"example.org:1/a/b:t@" + d:  {"example.org:1/a/b:t", d},
		"docker.io/library/nginx:1": {"docker.io/library/nginx:1", ""},
	} {
		name, dgst, err := canonical(ref)
		if err != nil || name != want[0] || dgst.String() != want[1] {
			t.Errorf("%s: %s %s %v", ref, name, dgst, err)
		}
	}
}
