package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"dunnage/api"
	"dunnage/spec"
	"dunnage/test/lab"
)

// The load that secrets are measured with.
const (
	storedSecrets  = 10_000
	secretsOfOne   = 20
	recordBytes    = 400 // of one sealed version, its record and its audit entry, about
	secretsAtATime = 500
)

// secretTimes are taken in turn: each with what it is compared to.
type secretTimes struct {
	Set   []time.Duration `json:"set"`
	Bbolt []time.Duration `json:"bbolt"`
	None  []time.Duration `json:"start_with_none"`
	Files []time.Duration `json:"start_with_20_files"`
	Half  []time.Duration `json:"start_with_10_files_and_10_variables"`
}

func (b *bench) secrets(ctx context.Context) error {
	say("%d secrets, set one by one, and starts of a replica with %d of them and with none", storedSecrets, secretsOfOne)
	t, err := measureSecrets(ctx, b.world, 3*b.runs)
	if err != nil {
		return err
	}
	b.results.Raw["secrets"] = t
	for _, r := range []struct {
		what        string
		some, least []time.Duration
	}{
		{fmt.Sprintf("secret set with %d stored, above bbolt's own commit", storedSecrets), t.Set, t.Bbolt},
		{fmt.Sprintf("start of a replica with %d secrets, above one with none", secretsOfOne), t.Files, t.None},
		{"the same, half of them variables, for which one more program is executed", t.Half, t.None},
	} {
		d := pairedDifference(r.some, r.least)
		b.results.add(row{
			What: r.what, Must: "<= 5 ms", OK: d <= 5*time.Millisecond,
			Ours: fmt.Sprintf("%.1f ms (%.1f by %.1f)", inMillis(d), inMillis(median(r.some)), inMillis(median(r.least))),
		})
	}
	return nil
}

func inMillis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// pairedDifference is the median of a[i]-b[i]: runs that stood side by side in time.
func pairedDifference(a, b []time.Duration) time.Duration {
	var all []time.Duration
	for i := range min(len(a), len(b)) {
		all = append(all, a[i]-b[i])
	}
	return median(all)
}

func measureSecrets(ctx context.Context, w world, runs int) (t secretTimes, err error) {
	agent, err := w.agent(ctx, "secrets", 18)
	defer func() { err = errors.Join(err, agent.Lab.Down(context.WithoutCancel(ctx))) }()
	if err != nil {
		return t, err
	}
	client, err := api.Dial(agent.URL(), api.Version{})
	if err != nil {
		return t, err
	}
	if err := storeSecrets(ctx, client); err != nil {
		return t, err
	}
	if err := startsWithSecrets(ctx, agent, &t); err != nil {
		return t, err
	}
	t.Set, t.Bbolt, err = setsAndCommits(ctx, client, agent.Lab.Path("state/least.db"), runs)
	return t, err
}

func storeSecrets(ctx context.Context, client *api.Client) error {
	for n := 0; n < storedSecrets; n += secretsAtATime {
		values := map[string]spec.SecretValue{}
		for i := range secretsAtATime {
			values[fmt.Sprintf("s%d", n+i)] = randomSecret()
		}
		if _, err := client.SetSecrets(ctx, spec.SecretRequest{Values: values}); err != nil {
			return err
		}
	}
	return nil
}

func randomSecret() spec.SecretValue {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return spec.NewSecretValue([]byte(hex.EncodeToString(b[:])))
}

// setsAndCommits alternates between a secret that gets a new version and the
// least that its place could cost: bbolt's commit of one record among as many, on
// the same disk.
func setsAndCommits(ctx context.Context, client *api.Client, path string, runs int) (sets, commits []time.Duration, err error) {
	least, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return nil, nil, err
	}
	defer least.Close() //nolint:errcheck // nobody reads it
	put := func(from, to int) error {
		return least.Update(func(tx *bbolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("records"))
			for i := from; i < to && err == nil; i++ {
				record := make([]byte, recordBytes)
				_, _ = rand.Read(record) // never fails
				err = bucket.Put(fmt.Appendf(nil, "s%d", i), record)
			}
			return err
		})
	}
	if err := put(0, storedSecrets); err != nil {
		return nil, nil, err
	}
	for i := range runs {
		n := i * (storedSecrets / runs)
		begun := time.Now()
		_, err := client.SetSecrets(ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{fmt.Sprintf("s%d", n): randomSecret()}})
		sets = append(sets, time.Since(begun))
		if err != nil {
			return nil, nil, err
		}
		begun = time.Now()
		if err := put(n, n+1); err != nil {
			return nil, nil, err
		}
		commits = append(commits, time.Since(begun))
	}
	return sets, commits, nil
}

// secretStarts is how many rounds of starts are timed. Single starts differ by tens
// of milliseconds, ten times what is looked for: fewer show only noise.
const secretStarts = 150

// startsWithSecrets alternates between projects on one host, each started until
// its port answers while the others are stopped.
func startsWithSecrets(ctx context.Context, agent lab.Agent, t *secretTimes) error {
	projects := []struct {
		name, port       string
		files, variables int
		times            *[]time.Duration
	}{
		{"none", "8081", 0, 0, &t.None},
		{"files", "8082", secretsOfOne, 0, &t.Files},
		{"half", "8083", secretsOfOne / 2, secretsOfOne / 2, &t.Half},
	}
	for _, p := range projects {
		text := strings.NewReplacer("name: one", "name: "+p.name, port+":", p.port+":").Replace(oneReplica)
		file, err := write(agent.Lab, p.name+".yaml", withSecrets(text, p.files, p.variables))
		if err != nil {
			return err
		}
		for _, verb := range []string{"deploy", "stop"} {
			if _, err := agent.Run(ctx, nil, verb, "-f", file); err != nil {
				return err
			}
		}
	}
	for i := range secretStarts + 1 {
		for _, p := range projects {
			begun := time.Now()
			if _, err := agent.Run(ctx, nil, "start", "-p", p.name); err != nil {
				return err
			}
			if err := awaitAnswer(ctx, agent.Lab, p.port); err != nil {
				return err
			}
			took := time.Since(begun)
			if _, err := agent.Run(ctx, nil, "stop", "-p", p.name); err != nil {
				return err
			}
			if i > 0 { // the first one warms caches up
				*p.times = append(*p.times, took)
			}
		}
	}
	return nil
}

// withSecrets gives the service of a manifest so many secrets as files, and
// others as variables.
func withSecrets(manifest string, files, variables int) string {
	var names, env, declared []string
	for i := range files + variables {
		name := fmt.Sprintf("s%d", i)
		declared = append(declared, name+": {external: true}")
		if i < files {
			names = append(names, name)
		} else {
			env = append(env, fmt.Sprintf("V%d: %s", i, name))
		}
	}
	return strings.Replace(manifest, "x-dunnage: {", "secrets: ["+strings.Join(names, ", ")+"]\n    x-dunnage: {secret_env: {"+strings.Join(env, ", ")+"}, ", 1) +
		"secrets: {" + strings.Join(declared, ", ") + "}\n"
}
