#!/bin/sh
# postgres: starts as root, owns its data, drops to the user postgres, and makes
# a database cluster in an empty data directory. POSTGRES_PASSWORD must be set
# then; POSTGRES_USER and POSTGRES_DB are optional.
set -eu

case "$1" in -*) set -- postgres "$@" ;; esac
[ "$1" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA" /var/run/postgresql
	chown postgres:postgres "$PGDATA" /var/run/postgresql
	find "$PGDATA" \! -user postgres -exec chown postgres:postgres '{}' +
	chmod 700 "$PGDATA"
	exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

user=${POSTGRES_USER:-postgres}
db=${POSTGRES_DB:-$user}

# PG_VERSION is written early; our own mark is written last, so that a start
# that was killed half way begins anew instead of running on half a cluster.
if [ ! -e "$PGDATA/entrypoint-done" ]; then
	: "${POSTGRES_PASSWORD:?must be set to make the database cluster}"
	find "$PGDATA" -mindepth 1 -delete
	pw=$(mktemp)
	printf '%s\n' "$POSTGRES_PASSWORD" > "$pw"
	initdb --pgdata="$PGDATA" --username="$user" --pwfile="$pw" --auth-host=scram-sha-256 --auth-local=trust
	rm -f "$pw"
	echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
	if [ "$db" != postgres ]; then
		# Only on the local socket: nobody may find the server half ready.
		pg_ctl --pgdata="$PGDATA" --wait -o "-c listen_addresses=''" start
		createdb --username="$user" "$db"
		pg_ctl --pgdata="$PGDATA" --wait -m fast stop
	fi
	touch "$PGDATA/entrypoint-done"
fi
exec "$@" -c listen_addresses='*'
