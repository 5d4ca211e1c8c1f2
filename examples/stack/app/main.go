// Command app is the program of examples/stack: every visit is counted in redis
// and becomes a row in postgres, and the answer names both numbers, the version
// and the replica.
//
//	GET /          "visit 7, row 7, version v1, app-1"
//	GET /healthz   200 when redis and postgres answer
//
// `app -check` asks /healthz of the program itself: an image without a shell
// has no curl.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"dunnage/examples/internal/lameduck"
)

// version is set by the linker: an image is one version.
var version = "dev"

const (
	// queryLimit is for one visit; a client would have gone away after that.
	queryLimit = 5 * time.Second
	// startLimit is for the database to take a new password over.
	startLimit = 15 * time.Second
	// sessions are opened at the start, all of them: a database whose password
	// has changed since goes on serving those, and lets no other one in.
	sessions = 4
)

func main() {
	listen := flag.String("listen", ":80", "address to listen on")
	check := flag.Bool("check", false, "ask the running program whether it is well, and exit 0 or 1")
	flag.Parse()
	var err error
	if *check {
		err = checkSelf(*listen)
	} else {
		err = serve(*listen)
	}
	if err != nil {
		log.Fatal("app: ", err)
	}
}

func checkSelf(listen string) error {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	c := http.Client{Timeout: queryLimit}
	resp, err := c.Get("http://" + net.JoinHostPort("127.0.0.1", port) + "/healthz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func serve(listen string) error {
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("read host name: %w", err)
	}
	pool, err := openPool()
	if err != nil {
		return err
	}
	defer pool.Close()
	a := &app{name: name, redis: os.Getenv("REDIS_ADDR"), rows: pool}
	if err := a.prepare(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log.Printf("app %s on %s", version, l.Addr())
	return lameduck.Serve(l, a.handler(), 15*time.Second)
}

// openPool opens the sessions of $DATABASE_URL with the password that stands in
// $DATABASE_PASSWORD_FILE.
func openPool() (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return nil, fmt.Errorf("read DATABASE_URL: %w", err)
	}
	if path := os.Getenv("DATABASE_PASSWORD_FILE"); path != "" {
		password, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read DATABASE_PASSWORD_FILE: %w", err)
		}
		config.ConnConfig.Password = strings.TrimSuffix(string(password), "\n")
	}
	config.MinConns, config.MaxConns = sessions, sessions
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	for until := time.Now().Add(startLimit); ; time.Sleep(100 * time.Millisecond) {
		if err = openAll(pool); err == nil {
			return pool, nil
		}
		if time.Now().After(until) {
			pool.Close()
			return nil, fmt.Errorf("open the database: %w", err)
		}
	}
}

// openAll takes all sessions at once, so that each is open.
func openAll(pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	for range sessions {
		c, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer c.Release()
	}
	return nil
}

type app struct {
	name  string
	redis string // host:port
	rows  *pgxpool.Pool
}

// prepare makes the table. Replicas that start together may both try: the lock
// lets one after the other (CREATE TABLE IF NOT EXISTS alone can collide).
func (a *app) prepare() error {
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	_, err := a.rows.Exec(ctx, `DO $$ BEGIN
		PERFORM pg_advisory_xact_lock(1);
		CREATE TABLE IF NOT EXISTS visits (
			id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(),
			version text NOT NULL, replica text NOT NULL);
		END $$`)
	if err != nil {
		return fmt.Errorf("make table visits: %w", err)
	}
	return nil
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.visit)
	mux.HandleFunc("GET /healthz", a.healthz)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", version)
		w.Header().Set("X-Replica", a.name)
		mux.ServeHTTP(w, r)
	})
}

func (a *app) visit(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	visits, err := redisInteger(ctx, a.redis, "INCR", "visits")
	if err != nil {
		fail(w, "count the visit", err)
		return
	}
	var rows int64
	err = a.rows.QueryRow(ctx, `INSERT INTO visits (version, replica) VALUES ($1, $2) RETURNING id`, version, a.name).Scan(&rows)
	if err != nil {
		fail(w, "keep the visit", err)
		return
	}
	fmt.Fprintf(w, "visit %d, row %d, version %s, %s\n", visits, rows, version, a.name)
}

func (a *app) healthz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	if _, err := redisInteger(ctx, a.redis, "EXISTS", "visits"); err != nil {
		fail(w, "ask redis", err)
		return
	}
	if err := a.rows.Ping(ctx); err != nil {
		fail(w, "ask postgres", err)
		return
	}
	fmt.Fprintln(w, "ok")
}

func fail(w http.ResponseWriter, what string, err error) {
	log.Printf("%s: %v", what, err)
	http.Error(w, "can't "+what, http.StatusServiceUnavailable)
}
