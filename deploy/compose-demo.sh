#!/bin/sh
# The demo in containers: build, start, show the table, keep what it wrote, leave nothing running.
#
#   OUT       a new folder for demo-report.json, demo-evidence, demo-wire.pcap and roots.json; dist/compose-demo by default
#   KEEP=1    leave the containers running at the end
#   COMPOSE_PROJECT_NAME, ISTHMUS_API_PORT    for a second demo on the same host
set -eu
cd "$(dirname "$0")/.."
compose() { docker compose -f deploy/compose.yaml "$@"; }
down() { [ -n "${KEEP:-}" ] || compose down --volumes --remove-orphans --timeout 15 2>/dev/null; }

if [ -z "${OUT:-}" ]; then
  OUT=dist/compose-demo
  rm -rf "$OUT"
elif [ -e "$OUT" ]; then
  echo "$OUT is there already: name a new folder." >&2
  exit 2
fi
trap 'down; exit 130' INT TERM
compose build
status=0
if compose up --detach; then
  # Only the showing: what the demo came to is what `docker wait` says, whether or not its words could be followed.
  docker logs --follow "$(compose ps --all --quiet demo)" || true
  status=$(docker wait "$(compose ps --all --quiet demo)")
  mkdir -p "$OUT"
  compose cp demo:/out/demo/. "$OUT" || status=3
  echo "Written: $OUT"
else
  compose ps --all
  compose logs --tail 20
  status=3
fi
down
exit "$status"
