#!/usr/bin/env python3
"""Containers made by libnvfatbin of many CUDA versions, in all compression modes, must give back what went in.

    python3 fatbin/tests/producers.py FATBIN NVCC LIBRARY...

FATBIN is the built command line tool, NVCC a compiler of CUDA 13, each LIBRARY a libnvfatbin.so.* (from the wheels
nvidia-nvfatbin-cu12 and nvidia-nvfatbin). Prints a table; exit status 1 if anything differs.
"""
import ctypes, json, os, re, subprocess, sys, tempfile

tool, nvcc, libraries = sys.argv[1], sys.argv[2], sys.argv[3:]
work = tempfile.TemporaryDirectory()
path = lambda name: os.path.join(work.name, name)


def run(*args):
    result = subprocess.run(args, capture_output=True)
    if result.returncode:
        sys.exit(f"{' '.join(args)}: {result.stderr.decode()}")
    return result.stdout


def read(name):
    with open(path(name), "rb") as file:
        return file.read()


with open(path("k.cu"), "w") as file:
    file.write('extern "C" __global__ void k(int *out, float f) { for (int i = 0; i < 9; i++) out[i] += i * f; }\n')
run(nvcc, "-ptx", "-arch=compute_75", path("k.cu"), "-o", path("k.ptx"))
run(nvcc, "-cubin", "-arch=sm_75", path("k.cu"), "-o", path("75.cubin"))
run(nvcc, "-cubin", "-arch=sm_90", path("k.cu"), "-o", path("90.cubin"))
run(nvcc, "-cubin", "-G", "-arch=sm_80", path("k.cu"), "-o", path("80g.cubin"))
run(nvcc, "-ltoir", "-dlto", "-dc", "-arch=sm_80", path("k.cu"), "-o", path("k.ltoir"))
# A version that every one of the libraries knows.
ptx = re.sub(rb"\.version \d+\.\d+", b".version 8.0", read("k.ptx"))


def make(library, options):
    def check(code):
        if code:
            library.nvFatbinGetErrorString.restype = ctypes.c_char_p
            raise RuntimeError(library.nvFatbinGetErrorString(code).decode())

    handle, size = ctypes.c_void_p(), ctypes.c_size_t()
    words = (ctypes.c_char_p * len(options))(*options)
    check(library.nvFatbinCreate(ctypes.byref(handle), words, ctypes.c_size_t(len(options))))
    made = []
    text = ptx + b"\0"
    check(library.nvFatbinAddPTX(handle, text, ctypes.c_size_t(len(text)), b"75", b"unit.cu", b"-O1 -v"))
    made.append(("PTX", "sm_75", ptx))
    for name, arch in [("75.cubin", b"75"), ("80g.cubin", b"80"), ("90.cubin", b"90")]:
        image = read(name)
        # Libraries of CUDA 12 may refuse machine code of CUDA 13.
        if library.nvFatbinAddCubin(handle, image, ctypes.c_size_t(len(image)), arch, b"unit.cu") == 0:
            made.append(("ELF", "sm_" + arch.decode(), image))
    image = read("k.ltoir")
    if library.nvFatbinAddLTOIR(handle, image, ctypes.c_size_t(len(image)), b"80", b"unit.cu", b"-ftz=0") == 0:
        made.append(("LTO-IR", "sm_80", image))
    check(library.nvFatbinSize(handle, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    check(library.nvFatbinGet(handle, buffer))
    library.nvFatbinDestroy(ctypes.byref(handle))
    return buffer.raw, made


failures = 0
print("| libnvfatbin | options | images | codecs | read back |\n|---|---|--:|---|---|")
for name in sorted(libraries):
    library = ctypes.CDLL(name)
    major, minor = ctypes.c_uint(), ctypes.c_uint()
    library.nvFatbinVersion(ctypes.byref(major), ctypes.byref(minor))
    for mode in ["", "speed", "balance", "size", "none", "all", "false"]:
        options = {"": [], "all": ["-compress-all"], "false": ["-compress=false"]}.get(mode, [f"-compress-mode={mode}"])
        words = " ".join(options) or "(default)"
        try:
            container, made = make(library, [o.encode() for o in options])
        except RuntimeError as error:
            print(f"| {major.value}.{minor.value} | {words} | - | - | refused: {error} |")
            continue
        with open(path("c.fatbin"), "wb") as file:
            file.write(container)
        (report,) = json.loads(run(tool, "inspect", "--json", path("c.fatbin")))
        entries = report["containers"][0]["entries"]
        good = len(entries) == len(made)
        codecs = []
        opaque = 0
        for entry, (kind, arch, image) in zip(entries, made):
            codecs.append(f"{kind} {entry['codec']}")
            good &= (entry["kind"], entry["arch"], entry["name"]) == (kind, arch, "unit.cu")
            if "obfuscated" in entry["flags"]:
                opaque += 1
                continue
            back = run(tool, "extract", "--stdout", "--index", f"0.{entry['index']}", path("c.fatbin"))
            # Comments and empty lines of PTX are blanked by the library; LTO-IR keeps its padding.
            lines = lambda t: b" ".join(l.split(b"//")[0] for l in t.split(b"\n")).split()
            same = {"PTX": lines(back) == lines(image), "LTO-IR": back.rstrip(b"\0") == image.rstrip(b"\0")}
            same = same.get(kind, back == image)
            good &= same
            if not same or os.environ.get("VERBOSE"):
                print(kind, arch, same, entry, len(back), len(image), file=sys.stderr)
        run(tool, "verify", path("c.fatbin"))
        failures += not good
        verdict = "identical" if good else "DIFFERENT"
        if opaque:
            verdict += f", {opaque} obfuscated"
        print(f"| {major.value}.{minor.value} | {words} | {len(made)} | {', '.join(codecs)} | {verdict} |")
sys.exit(1 if failures else 0)
