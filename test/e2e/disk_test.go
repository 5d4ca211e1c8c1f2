package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/color"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
	"dunnage/test/plot"
)

// diskPlot is where the soak draws what it has measured; empty = nowhere.
var diskPlot = os.Getenv("DUNNAGE_DISK_PLOT")

const (
	diskBudget   = 96 << 20
	diskKept     = 3       // releases
	diskImage    = 4 << 20 // what each image has of its own, compressed and unpacked again
	chattyOutput = 4 << 20 // bytes that a container writes, twice of what its log may have
)

// chatty is a web server, and what writes more than its log may have; n is the
// version of both.
func chatty(n int) string {
	return fmt.Sprintf(`name: shop
services:
  web:
    image: shop:%d
    ports: ["8080:80"]
    stop_grace_period: 1s
    x-dunnage: {drain: 5s, probe: {http: {port: 80, path: /health}, interval: 200ms}}
  chatty:
    image: shop:%d
    command: [log, "%d", "200"]
    restart: on-failure
    logging: {options: {max-size: 1m, max-file: "2"}}
`, n, n, chattyOutput/200)
}

// loadShop loads the image of a version, as somebody does who has no registry.
func (h *host) loadShop(n int) {
	h.t.Helper()
	h.must("image", "load", h.shopArchive(n, diskImage))
}

// shopArchive saves the image of a version that has so many bytes of its own.
func (h *host) shopArchive(n, size int) string {
	h.t.Helper()
	body := make([]byte, size)
	x := uint32(n)*2654435761 + 1
	for i := range body { // doesn't get smaller by compression
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		body[i] = byte(x)
	}
	img := testenv.Image(h.t, testenv.ImageSpec{
		Layers: [][]testenv.File{{{Path: "own", Body: body}}},
		Config: v1.Config{Entrypoint: []string{"/testapp"}, Cmd: []string{"serve"}, Env: []string{"VERSION=" + strconv.Itoa(n)}},
	})
	var archive bytes.Buffer
	if _, err := archive.ReadFrom(testenv.Archive(h.t, map[string]v1.Image{"shop:" + strconv.Itoa(n): img})); err != nil {
		h.t.Fatal(err)
	}
	return h.file("shop.tar", archive.String())
}

// diskSamples is what the disk had while versions came and went.
type diskSamples struct {
	mu      sync.Mutex
	version int
	used    []diskSample
}

type diskSample struct {
	version int
	bytes   int64
}

func (s *diskSamples) at(version int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = version
}

func (s *diskSamples) add(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = append(s.used, diskSample{s.version, bytes})
}

// TestDiskSoak: images come, are deployed, rolled back from and replaced, with
// containers that write without end, while somebody else collects all the time.
// The disk stays within its budget, and each kept release can be gone back to
// without a registry.
func TestDiskSoak(t *testing.T) {
	h := newBareHost(t)
	h.agent.Flags = []string{"--config", h.file("config.yaml", fmt.Sprintf("disk: {budget: %d, keep_releases: %d}\n", diskBudget, diskKept))}
	h.start()
	n := rounds(6, 300)
	samples := &diskSamples{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	end := sync.OnceFunc(func() { close(done); wg.Wait() })
	defer end()
	collected, missed := 0, ""
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(300 * time.Millisecond):
			}
			var r spec.DiskReport
			if got := h.run(nil, "df", "--json"); got.code != 0 || json.Unmarshal([]byte(got.stdout), &r) != nil {
				missed = "df: " + got.stderr
				continue
			}
			samples.add(r.Counted.Bytes)
			if i%4 == 3 { // beside what the agent does by itself
				if got := h.run(nil, "gc"); got.code != 0 {
					missed = "gc: " + got.stderr
				}
				collected++
			}
		}
	})
	back := 0
	for i := 1; i <= n; i++ {
		samples.at(i)
		h.loadShop(i)
		h.mustDeploy(chatty(i))
		h.answers(8080, fmt.Sprintf("%q", strconv.Itoa(i)))
		if i%3 == 0 { // one of the three that are kept, the present one and a release that has been left among them
			h.must("rollback", "-p", "shop")
			h.answers(8080, fmt.Sprintf("%q", strconv.Itoa(i-1)))
			back++
		}
	}
	end()
	if missed != "" {
		t.Error(missed)
	}
	releases := h.releases("shop")
	if len(releases) < diskKept || len(releases) > diskKept+1 { // one more: what a rollback goes to stays
		t.Errorf("%d releases are kept: %+v", len(releases), releases)
	}
	for _, r := range releases {
		h.must("rollback", "-p", "shop", strconv.Itoa(r.Number))
		h.answers(8080, fmt.Sprintf("%q", versionOf(r)))
		back++
	}
	h.must("gc")
	if got := h.must("events", "--no-follow", "--kind", "collected"); !strings.Contains(got, "images docker.io/library/shop:1") {
		t.Errorf("nothing tells that the first image has gone: %s", got)
	}
	images := strings.Count(h.must("image", "ls"), "shop:")
	most := int64(0)
	for _, s := range samples.used {
		most = max(most, s.bytes)
	}
	t.Logf("df at the end:\n%s", h.must("df"))
	came := int64(n) * (2*diskImage + chattyOutput/2) // images, unpacked again, and what a log may have
	row(t, fmt.Sprintf("%d redeploys of distinct images with chatty containers", n),
		fmt.Sprintf("never above the budget of %s", spec.Bytes(diskBudget)),
		fmt.Sprintf("%s at most in %d samples; new images and logs alone were %s; %d collections asked for beside the agent's", spec.Bytes(most), len(samples.used), spec.Bytes(came), collected), most <= diskBudget && len(samples.used) > n/2)
	row(t, "rollbacks without a registry while everything is collected", "each answers with its own version", fmt.Sprintf("%d of %d did, %d images are left", back, back, images), !t.Failed() && images <= diskKept+2)
	if diskPlot != "" {
		if err := samples.draw(diskPlot, n); err != nil {
			t.Error(err)
		}
	}
}

// versionOf is the tag of a release's web service.
func versionOf(r spec.Release) string {
	_, tag, _ := strings.Cut(r.Images["web"].Ref, "shop:")
	return tag
}

// draw puts use over redeploys, with the budget, into a PNG file.
func (s *diskSamples) draw(path string, n int) error {
	const width, height, left, top, right, bottom = 640, 360, 80, 20, 610, 300
	const most = diskBudget * 5 / 4
	img := plot.New(width, height)
	black, grey, red, blue := color.Black, color.Gray{0xdd}, color.RGBA{0xc0, 0x20, 0x20, 0xff}, color.RGBA{0x20, 0x50, 0xb0, 0xff}
	across := func(version int) int { return left + version*(right-left)/n }
	up := func(bytes int64) int { return bottom - int(bytes*(bottom-top)/most) }
	for mib := int64(0); mib<<20 <= most; mib += 20 {
		y := up(mib << 20)
		plot.Line(img, left, y, right, y, grey)
		text := fmt.Sprintf("%d MIB", mib)
		plot.Text(img, left-8-plot.Advance*len(text), y-3, text, black)
	}
	for i := range 7 {
		x := across(n * i / 6)
		plot.Line(img, x, top, x, bottom, grey)
		text := strconv.Itoa(n * i / 6)
		plot.Text(img, x-plot.Advance*len(text)/2, bottom+8, text, black)
	}
	plot.Line(img, left, top, left, bottom, black)
	plot.Line(img, left, bottom, right, bottom, black)
	plot.Line(img, left, up(diskBudget), right, up(diskBudget), red)
	plot.Text(img, left, bottom+32, "BUDGET", red)
	plot.Text(img, left+120, bottom+32, "DISK IN USE BY NUMBER OF REDEPLOYS", blue)
	for i, v := range s.used {
		if i > 0 {
			before := s.used[i-1]
			plot.Line(img, across(before.version), up(before.bytes), across(v.version), up(v.bytes), blue)
		}
	}
	return plot.Save(img, path)
}
