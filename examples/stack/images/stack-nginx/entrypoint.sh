#!/bin/sh
# nginx: the master stays root to bind port 80, the workers are www-data. The
# site is the file that the manifest mounts at /etc/nginx/conf.d/default.conf.
set -eu

if [ "$1" = nginx ]; then
	rm -f /etc/nginx/sites-enabled/default
	nginx -t -q
fi
exec "$@"
