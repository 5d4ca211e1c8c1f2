package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
	"dunnage/internal/reread"
)

// startRecord remembers that a replica was started since the last boot.
// containerd keeps no start time, and forgets the task altogether when its shim dies.
type startRecord struct {
	Boot    string    `json:"boot"` // the kernel's boot_id; a record of an earlier boot counts as none
	Pid     int       `json:"pid"`
	Started time.Time `json:"started"`
	Exited  time.Time `json:"exited,omitzero"` // when it was first seen gone, if containerd lost the exit
}

// startRecords are files in the run directory. A reboot ends every process and
// outdates every record, also where the directory survives it.
type startRecords struct {
	dir, boot string
	known     reread.Cache[startRecord]

	mu  sync.Mutex
	now map[string]startRecord // of processes that were found running: every look asks for each
}

// since is when the process started that was last found running with that pid,
// without asking the disk. Whatever changes a record makes the next look ask.
func (s *startRecords) since(id string, pid int) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.now[id]
	return r.Started, ok && r.Pid == pid
}

func (s *startRecords) found(id string, r startRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		s.now = map[string]startRecord{}
	}
	s.now[id] = r
}

func (s *startRecords) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.now, id)
}

// scratchRecord begins the names of records that aren't complete.
const scratchRecord = ".tmp-"

func newStartRecords(dir string) (*startRecords, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's boot id: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, scratchRecord+"*"))
	if err != nil {
		return nil, fmt.Errorf("look for unfinished start records: %w", err)
	}
	for _, path := range left { // of an agent that was killed as it wrote
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("remove an unfinished start record: %w", err)
		}
	}
	return &startRecords{dir: dir, boot: fault.Claim("boot", strings.TrimSpace(string(boot)))}, nil
}

func (s *startRecords) path(id string) string { return filepath.Join(s.dir, id+".json") }

func (s *startRecords) get(id string) (startRecord, bool) {
	r, err := s.known.Read(s.path(id), func(b []byte) (r startRecord, err error) {
		err = json.Unmarshal(b, &r)
		return r, err
	})
	if err != nil || r.Boot != s.boot {
		return startRecord{}, false
	}
	return r, true
}

func (s *startRecords) put(id string, r startRecord) error {
	s.forget(id)
	r.Boot = s.boot
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode start record of %s: %w", id, err)
	}
	if err := s.remake(); err != nil {
		return fmt.Errorf("write start record of %s: %w", id, err)
	}
	tmp, err := os.CreateTemp(s.dir, scratchRecord) // concurrent writers must not share one
	if err != nil {
		return fmt.Errorf("write start record of %s: %w", id, err)
	}
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = fault.Do("start record rename", func() error { return os.Rename(tmp.Name(), s.path(id)) })
	}
	if err != nil {
		return fmt.Errorf("write start record of %s: %w", id, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// remake makes the directory when somebody has removed it. The next look writes the
// records of those that run anew.
func (s *startRecords) remake() error {
	if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	s.now = nil
	s.mu.Unlock()
	return regular.MkdirThrough(s.dir, 0o711)
}

func (s *startRecords) remove(id string) error {
	s.forget(id)
	s.known.Forget(s.path(id))
	if err := fault.Do("start record remove", func() error { return os.Remove(s.path(id)) }); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove start record of %s: %w", id, err)
	}
	return nil
}

// processStart reads from the kernel when a process started, to 10 ms.
func processStart(pid int) (time.Time, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, false
	}
	// Field 22, counted after the name, which may hold spaces and brackets.
	_, rest, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return time.Time{}, false
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(uptime))[0], 64)
	if err != nil {
		return time.Time{}, false
	}
	boot := time.Now().Add(-time.Duration(seconds * float64(time.Second)))
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux architecture that Go supports
	return boot.Add(time.Duration(ticks) * tick), true
}
