"""Named checks of one script: each runs and is reported by itself.

The output has a form that `cargo xtask test --gpu` reads:

    # rtol=1e-3 atol=1e-6      tolerances from here on of numbers with a point or an exponent; all else must be the same
    == name                    a section begins
    ...                        what it prints
    -- ok 1.2 s | -- skipped: why | -- failed: why
"""

import gc
import os
import signal
import sys
import time
import traceback


class Skip(Exception):
    """Raised by a section that cannot run here."""


def check(condition, message):
    """Ends the section as failed: a result is wrong wherever it was computed."""
    if not condition:
        raise AssertionError(message)


def show(name, *values):
    """Prints results, numbers with more digits than any tolerance looks at."""
    print(name + ":", " ".join(f"{value:.9g}" if isinstance(value, float) else str(value) for value in values), flush=True)


def leave():
    """The end of a section of its own process after which nothing can end in order, as on a lost device."""
    print("-- ok", flush=True)
    os._exit(0)


def run(sections, rtol=1e-5, atol=1e-6, isolate=False, limit_s=60, limits=None):
    """Runs the functions `sections` or those named as arguments.

    isolate: each in a forked child of this process, which must not have used the device yet. A section that loses the device, hangs
    or dies does not take the others along; it has `limit_s` seconds, or its own number in `limits`.
    """
    print(f"# rtol={rtol:g} atol={atol:g}", flush=True)
    wanted = sys.argv[1:]
    for section in sections:
        name = section.__name__
        if wanted and name not in wanted:
            continue
        print(f"== {name}", flush=True)
        if isolate:
            sys.stderr.flush()
            child = os.fork()
            if child == 0:
                one(section)
                # Leaves as a program does, with everything that the libraries do at exit.
                sys.exit(0)
            wait(child, (limits or {}).get(name, limit_s))
        else:
            one(section)
            gc.collect()


def one(section):
    begin = time.monotonic()
    try:
        section()
        line = f"ok {time.monotonic() - begin:.2f} s"
    except Skip as why:
        line = f"skipped: {why}"
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        line = f"failed: {type(error).__name__}: {first[:300]}"
    print(f"-- {line}", flush=True)


def wait(child, limit_s):
    """Adds what the child cannot say itself: its sudden end, and one that comes after its last line."""
    end = time.monotonic() + limit_s
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            print(f"-- failed: ended after {limit_s} s", flush=True)
            return
        time.sleep(0.02)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        print(f"-- failed: {signal.Signals(-code).name}", flush=True)
    elif code > 0:
        print(f"-- failed: exit code {code}", flush=True)
