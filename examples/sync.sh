#!/bin/sh
# One sync from PostHog to Patterns, for cron: config.json, patterns.json, catalog.json and state.json
# are in the directory that is given, or in the current one. Never runs twice at a time there.
set -eu
cd "${1:-.}"
exec 9> sync.lock
if ! flock -n 9; then
  echo "the last sync is still running" >&2
  exit 0
fi
touch state.json
# The destination fails when the source has failed, so the exit code of the pipe is that of both.
source-posthog read --quiet --log-format text --config config.json --catalog catalog.json --state state.json \
  | destination-patterns write --quiet --log-format text --config patterns.json --catalog catalog.json \
    --state-file state.json
