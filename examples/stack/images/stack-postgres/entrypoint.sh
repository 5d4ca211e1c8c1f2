#!/bin/sh
# postgres: starts as root, owns its data, runs the server as the user postgres,
# and makes a database cluster in an empty data directory. POSTGRES_PASSWORD_FILE
# names a file with the password, or POSTGRES_PASSWORD is it; POSTGRES_USER and
# POSTGRES_DB are optional. The password is set at each start and at SIGHUP, so
# that a new one in the file needs no restart.
set -eu

case "$1" in -*) set -- postgres "$@" ;; esac
[ "$1" = postgres ] || exec "$@"

as=
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA" /var/run/postgresql
	chown postgres:postgres "$PGDATA" /var/run/postgresql
	find "$PGDATA" \! -user postgres -exec chown postgres:postgres '{}' +
	chmod 700 "$PGDATA"
	as="setpriv --reuid=postgres --regid=postgres --init-groups"
fi

user=${POSTGRES_USER:-postgres}
db=${POSTGRES_DB:-$user}

# alter is the statement that sets the password. It goes through pipes only: no
# argument, file or log has it.
alter() {
	password=${POSTGRES_PASSWORD:-}
	[ -z "${POSTGRES_PASSWORD_FILE:-}" ] || password=$(cat "$POSTGRES_PASSWORD_FILE")
	: "${password:?POSTGRES_PASSWORD_FILE or POSTGRES_PASSWORD must have one}"
	password=$(printf %s "$password" | sed "s/'/''/g")
	printf "SET log_min_error_statement = panic;\nALTER USER \"%s\" PASSWORD '%s';\n" "$user" "$password"
}

# Our own mark is written last, so that a start that was killed half way begins
# anew instead of running on half a cluster.
if [ ! -e "$PGDATA/entrypoint-done" ]; then
	find "$PGDATA" -mindepth 1 -delete
	$as initdb --pgdata="$PGDATA" --username="$user" --auth-host=scram-sha-256 --auth-local=trust
	echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
	if [ "$db" != postgres ]; then
		# Only on the local socket: nobody may find the server half ready.
		$as pg_ctl --pgdata="$PGDATA" --wait -o "-c listen_addresses=''" start
		$as createdb --username="$user" "$db"
		$as pg_ctl --pgdata="$PGDATA" --wait -m fast stop
	fi
	$as touch "$PGDATA/entrypoint-done"
fi
alter | $as postgres --single -D "$PGDATA" "$db" > /dev/null

$as "$@" -c listen_addresses='*' &
server=$!
trap 'kill -INT "$server"' INT TERM
trap 'alter | $as psql --no-psqlrc --quiet --username="$user" "$db" || echo "the password stays as it was" >&2' HUP
# wait ends at each signal that is trapped.
code=0
while kill -0 "$server" 2> /dev/null; do
	wait "$server" && code=0 || code=$?
done
exit "$code"
