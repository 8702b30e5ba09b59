#!/bin/bash
# docker-entrypoint.sh [postgres] [OPTION...]: makes the database where there is none, then serves.
# Another command is run as it is.
#
# POSTGRES_PASSWORD     needed the first time, unless POSTGRES_HOST_AUTH_METHOD=trust
# POSTGRES_USER         superuser (postgres)
# POSTGRES_DB           database (the name of the user)
# POSTGRES_INITDB_ARGS  more options of initdb, parted by blanks
# POSTGRES_HOST_AUTH_METHOD  how clients of the network prove who they are (scram-sha-256)
#
# Each of the first four may be in a file that X_FILE names. They count the first time only, as does
# what lies in /docker-entrypoint-initdb.d: *.sh, *.sql, *.sql.gz.
set -Eeuo pipefail
umask 0077

fail() {
	echo "postgres: error: $1" >&2
	exit 1
}

# from_file NAME [DEFAULT]: takes the variable's value from the file that NAME_FILE names.
from_file() {
	local file=$1_FILE
	if [ -n "${!file:-}" ]; then
		[ -z "${!1:-}" ] || fail "found both $1 and $file, expected one of them"
		[ -r "${!file}" ] || fail "$file: found no readable file ${!file}"
		printf -v "$1" %s "$(<"${!file}")"
	fi
	printf -v "$1" %s "${!1:-${2:-}}"
	unset "$file"
}

query() {
	psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"
}

run_scripts() {
	local script
	for script in /docker-entrypoint-initdb.d/*; do
		case $script in
		*.sql) query --dbname "$POSTGRES_DB" --file "$script" ;;
		*.sql.gz) gzip -dc "$script" | query --dbname "$POSTGRES_DB" ;;
		*.sh)
			if [ -x "$script" ]; then
				"$script"
			else
				# shellcheck disable=SC1090 # whatever is mounted there
				. "$script"
			fi
			;;
		*)
			[ ! -e "$script" ] || echo "postgres: left alone, no .sh, .sql or .sql.gz: $script" >&2
			;;
		esac
	done
}

# initialise FOLDER: a new cluster in it, with the database and what the scripts make.
initialise() {
	[ -n "$POSTGRES_PASSWORD" ] || [ "$POSTGRES_HOST_AUTH_METHOD" = trust ] ||
		fail "POSTGRES_PASSWORD: found none, expected the password of a new database"
	local options=()
	read -ra options <<<"$POSTGRES_INITDB_ARGS"
	# Not as an argument, where others could read it.
	[ -z "$POSTGRES_PASSWORD" ] || options+=(--pwfile=/dev/stdin)
	initdb --pgdata="$1" --username="$POSTGRES_USER" \
		--auth-local=trust --auth-host=scram-sha-256 "${options[@]}" <<<"$POSTGRES_PASSWORD"
	echo "host all all all $POSTGRES_HOST_AUTH_METHOD" >>"$1/pg_hba.conf"
	# Nobody can come in by the network while this is not done.
	pg_ctl --pgdata="$1" --wait --options="-c listen_addresses='' -p 5432" start
	export POSTGRES_USER POSTGRES_DB PGHOST=/var/run/postgresql PGUSER=$POSTGRES_USER PGDATABASE=$POSTGRES_DB
	if [ "$POSTGRES_DB" != postgres ]; then
		query --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
	fi
	run_scripts
	unset PGHOST PGUSER PGDATABASE
	pg_ctl --pgdata="$1" --wait --mode=fast stop
}

# A start that was killed leaves no half-made database: it is made in a folder of its own, and
# PG_VERSION, which says that there is one, is moved last.
make_database() {
	local new=$PGDATA/.new
	if [ ! -e "$new/.complete" ]; then
		rm -rf "$new"
		[ -z "$(find "$PGDATA" -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ] ||
			fail "$PGDATA: found files but no database, expected an empty folder, or one of PostgreSQL"
		initialise "$new"
		: >"$new/.complete"
	fi
	find "$new" -mindepth 1 -maxdepth 1 ! -name PG_VERSION ! -name .complete \
		-exec mv -t "$PGDATA" {} +
	mv "$new/PG_VERSION" "$PGDATA/"
	rm -rf "$new"
}

[ $# -gt 0 ] && [ "${1#-}" = "$1" ] || set -- postgres "$@"
if [ "$1" = postgres ] && [[ ! " $* " =~ " --help "|" --version "|" -C " ]]; then
	mkdir -p "$PGDATA" || fail "$PGDATA: user $(id -u):$(id -g) cannot make it"
	# PostgreSQL starts only in a folder of its user's own, open to nobody else.
	[ -O "$PGDATA" ] || fail "$PGDATA: belongs to user $(stat -c %u "$PGDATA"), expected $(id -u). Set PGDATA to a folder in it"
	chmod 0700 "$PGDATA"
	if [ ! -s "$PGDATA/PG_VERSION" ]; then
		from_file POSTGRES_PASSWORD
		from_file POSTGRES_USER postgres
		from_file POSTGRES_DB "$POSTGRES_USER"
		from_file POSTGRES_INITDB_ARGS
		: "${POSTGRES_HOST_AUTH_METHOD:=scram-sha-256}"
		make_database
	elif [ "$(<"$PGDATA/PG_VERSION")" != "$PG_MAJOR" ]; then
		fail "$PGDATA: found a database of PostgreSQL $(<"$PGDATA/PG_VERSION"), expected $PG_MAJOR. Move it by pg_dump and psql"
	fi
	rm -rf "$PGDATA/.new"
	# The server has no use for it; whoever may look at its environment should not find it.
	unset POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE
fi
exec "$@"
