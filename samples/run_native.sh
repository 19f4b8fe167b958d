#!/usr/bin/env bash
# Runs built samples directly, with whatever libcuda.so.1 the machine has: `samples/run_native.sh samples/build/static`.
#
# For a machine with a GPU and neither Rust nor nvcc: it needs bash and python3. Each program gets 60 s (TIMEOUT=n changes
# that); its output must match samples/<name>/expected.txt, where {{...}} stands for a regular expression. Exit code 0 if
# all pass. Further arguments are the names of the samples to run.
set -u

usage() {
    echo "usage: $0 DIRECTORY [NAME...]" >&2
    exit 2
}
[ $# -ge 1 ] && [ -d "$1" ] || usage
directory=$(cd "$1" && pwd)
shift
samples=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0
failed=0

cat >"$scratch/compare.py" <<'PYTHON'
import re, sys

expected, actual = (open(path, errors="replace").read().splitlines() for path in sys.argv[1:3])
bad = False
for number in range(max(len(expected), len(actual))):
    want = expected[number] if number < len(expected) else None
    have = actual[number] if number < len(actual) else None
    if want is not None and have is not None:
        parts = re.split(r"\{\{(.*?)\}\}", want)
        pattern = "".join(f"(?:{p})" if i % 2 else re.escape(p) for i, p in enumerate(parts))
        if re.fullmatch(pattern, have):
            continue
    bad = True
    print(f"    line {number + 1}")
    print(f"    - {want if want is not None else '(end of the expected output)'}")
    print(f"    + {have if have is not None else '(end of the output)'}")
    if want is None or have is None:
        break
sys.exit(bad)
PYTHON

run() {
    local name=$1 code started ended
    started=$(date +%s%N)
    timeout --kill-after=5 "${TIMEOUT:-60}" "$directory/$name" >"$scratch/out" 2>"$scratch/err" </dev/null
    code=$?
    ended=$(date +%s%N)
    local verdict=pass
    [ "$code" -eq 0 ] || verdict="FAIL (exit code $code)"
    python3 "$scratch/compare.py" "$samples/$name/expected.txt" "$scratch/out" >"$scratch/diff" || verdict=${verdict/#pass/FAIL (output)}
    printf '%-20s %6d ms  %s\n' "$name" $(((ended - started) / 1000000)) "$verdict"
    if [ "$verdict" = pass ]; then
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
    cat "$scratch/diff"
    tail -n 10 "$scratch/err" | sed 's/^/    stderr: /'
}

if [ $# -eq 0 ]; then
    for program in "$directory"/*; do
        name=$(basename "$program")
        if [ -x "$program" ] && [ -f "$samples/$name/expected.txt" ]; then
            set -- "$@" "$name"
        fi
    done
fi
for name in "$@"; do
    run "$name"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
