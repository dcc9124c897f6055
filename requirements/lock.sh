#!/usr/bin/env bash
# Resolves requirements/{cpu,gpu}.in into the full locks beside them. The CPU build of torch is looked for where pip's
# find-links points, else in PyTorch's CPU index. Resolution reads metadata only, so gpu.txt needs no GPU here.
set -euo pipefail
cd "$(dirname "$0")"
uv=../.venv/bin/uv
common=(--python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-find-links --no-emit-index-url --no-annotate --no-header --quiet)
source=(--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
links="$(../.venv/bin/pip config get global.find-links 2>/dev/null || true)"
if [ -n "$links" ] && ../.venv/bin/pip download --quiet --no-deps --dest "$(mktemp -d)" 'torch==2.13.0+cpu' 2>/dev/null; then
    source=()
    for link in $links; do source+=(--find-links "$link"); done
fi
head() {
    echo "# Full lock, made from requirements/$1.in by requirements/lock.sh (make lock). Install with pip --no-deps."
    [ "$1" = gpu ] || echo "# torch==2.13.0+cpu is in PyTorch's CPU index (https://download.pytorch.org/whl/cpu), not in the public registry."
}
"$uv" pip compile "${common[@]}" "${source[@]}" --overrides cpu-overrides.txt cpu.in --output-file cpu.tmp >/dev/null
{ head cpu; cat cpu.tmp; } > cpu.txt
"$uv" pip compile "${common[@]}" gpu.in --output-file gpu.tmp >/dev/null
{ head gpu; cat gpu.tmp; } > gpu.txt
rm -f cpu.tmp gpu.tmp
