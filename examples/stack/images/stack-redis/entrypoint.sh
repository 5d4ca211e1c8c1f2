#!/bin/sh
# redis: starts as root, owns its data, drops to the user redis.
set -eu

# `redis-server --option` and plain options are both a server.
case "$1" in -*) set -- redis-server "$@" ;; esac

if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
	find . \! -user redis -exec chown redis:redis '{}' +
	exec setpriv --reuid=redis --regid=redis --init-groups "$0" "$@"
fi
# Inside a container only its network reaches it: that is the protection.
[ "$1" != redis-server ] || set -- "$@" --protected-mode no --bind '*'
exec "$@"
