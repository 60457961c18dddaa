#!/bin/sh
# Resolve what the images install, from pyproject.toml and within the versions of deploy/requirements.lock.
#
#   border.lock   borders, coordinator and people: no learning library, no columns
#   zone.lock     a zone, its ingest, its cluster
#   build.lock    what builds the package in the first stage
set -eu
cd "$(dirname "$0")/../.."
uv=${UV:-.venv/bin/uv}
compile() {
  "$uv" pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet \
    --python-version 3.11 --constraint deploy/requirements.lock "$@"
}
without=
for package in jax jaxlib optax ml-dtypes opt-einsum duckdb pyarrow; do
  without="$without --no-emit-package $package"
done
compile --extra site $without pyproject.toml -o deploy/image/border.lock
compile --extra site --extra ray pyproject.toml -o deploy/image/zone.lock
printf 'hatchling>=1.27\nuv>=0.13\n' | compile - -o deploy/image/build.lock
