#!/usr/bin/env python3
"""Makes what select_check.py runs: containers with one image after the other, and what `fatbin` expects of them.

    python3 fatbin/tests/gpu/make_select.py NVCC FATBIN OUT [FILE...]

NVCC is the nvcc of CUDA 13.5, FATBIN the built command line tool, OUT the directory to fill. FILEs are programs whose
containers are used to compare kernel parameters. Every image has a kernel `answer` that writes the number of the image,
and an empty kernel `image_N` that tells the number to a reader of the file.
"""
import json, os, random, re, shutil, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

nvcc, tool, out = sys.argv[1:4]
programs = sys.argv[4:]
fatbinary = os.path.join(os.path.dirname(nvcc), "fatbinary")
cases = os.path.join(out, "cases")
work = os.path.join(out, "work")
shutil.rmtree(out, ignore_errors=True)
os.makedirs(cases)
os.makedirs(work)


def run(*args):
    result = subprocess.run(args, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(args)}: {result.stderr}")


# kind, arch, PTX version to claim (None: the compiler's own, 9.5 for 13.5, too new for a driver of 13.0), extra options
IMAGES = {}
for arch in ["75", "80", "86", "89", "90", "90a", "100", "100a", "100f", "120"]:
    IMAGES[f"elf{arch}"] = ("elf", arch, None, [])
for arch, version in [("75", "8.0"), ("80", "8.0"), ("86", "8.0"), ("90", "8.0"), ("90a", "8.0"), ("100", "8.6"), ("100a", "8.6"), ("100f", "8.8")]:
    IMAGES[f"ptx{arch}"] = ("ptx", arch, version, [])
IMAGES["ptx80at9.0"] = ("ptx", "80", "9.0", [])
IMAGES["ptx80at9.1"] = ("ptx", "80", "9.1", [])
IMAGES["ptx80new"] = ("ptx", "80", None, [])
IMAGES["ptx90new"] = ("ptx", "90", None, [])
IMAGES["elf90debug"] = ("elf", "90", None, ["-G"])
IMAGES["ptx80again"] = ("ptx", "80", "8.0", [])
IMAGES["elf90again"] = ("elf", "90", None, [])
IMAGES["elf80again"] = ("elf", "80", None, [])
IMAGES["ptx90again"] = ("ptx", "90", "8.0", [])
IMAGES["ptx90at9.0"] = ("ptx", "90", "9.0", [])
IMAGES["ptx90aagain"] = ("ptx", "90a", "8.0", [])
IMAGES["ptx90anew"] = ("ptx", "90a", None, [])
IMAGES["ptx75new"] = ("ptx", "75", None, [])
IMAGES["ptx86again"] = ("ptx", "86", "8.0", [])
NUMBER = {name: 100 + i for i, name in enumerate(IMAGES)}


def build(name):
    kind, arch, version, extra = IMAGES[name]
    source = os.path.join(work, name + ".cu")
    with open(source, "w") as file:
        n = NUMBER[name]
        file.write(f'extern "C" __global__ void answer(int *out) {{ *out = {n}; }}\n')
        file.write(f'extern "C" __global__ void image_{n}() {{}}\n')
    target = os.path.join(work, name)
    if kind == "elf":
        run(nvcc, "-cubin", f"-arch=sm_{arch}", *extra, source, "-o", target)
    else:
        run(nvcc, "-ptx", f"-arch=compute_{arch}", *extra, source, "-o", target)
        if version:
            text = open(target).read()
            open(target, "w").write(re.sub(r"\.version \d+\.\d+", f".version {version}", text))


with ThreadPoolExecutor(2) as pool:
    list(pool.map(build, IMAGES))

mixed = ["elf75", "elf80", "elf86", "elf89", "elf90", "ptx75", "ptx80", "ptx90"]
CASES = [[name] for name in IMAGES]
CASES += [
    ["elf80", "ptx80"], ["ptx80", "elf80"], ["elf90", "ptx90"], ["ptx90", "elf90"],
    ["elf90", "elf90a"], ["elf90a", "elf90"], ["ptx90", "ptx90a"], ["ptx90a", "ptx90"],
    ["elf90", "ptx90a"], ["ptx90a", "elf90"], ["elf90a", "ptx90"], ["elf90a", "ptx90", "ptx90a", "elf90"],
    ["ptx75", "ptx80", "ptx90"], ["ptx90", "ptx80", "ptx75"], ["ptx80", "ptx90", "ptx75"],
    ["ptx75", "ptx80"], ["ptx80", "ptx75"], ["ptx75", "ptx100"], ["ptx100", "ptx75"], ["ptx80", "ptx86"],
    ["elf75", "elf80", "elf86", "elf89"], ["elf75", "elf80", "elf86", "elf89", "ptx75"],
    ["elf86", "elf89", "ptx86"], ["elf100", "ptx75"], ["elf100", "ptx100"], ["elf100", "elf90"],
    ["elf100a", "elf100f", "elf100", "ptx90"], ["ptx100a", "ptx100f", "ptx80"],
    ["ptx80new", "ptx75"], ["ptx75", "ptx80new"], ["ptx90new", "ptx80"], ["ptx80", "ptx90new"], ["ptx80new", "elf90"],
    ["ptx80at9.1", "ptx80at9.0"], ["ptx80at9.0", "ptx80"], ["ptx80", "ptx80at9.0"],
    ["elf90debug", "ptx80"], ["ptx80", "elf90debug"], mixed, mixed[::-1],
    ["ptx80", "ptx80again"], ["ptx80again", "ptx80"], ["elf90", "elf90again"], ["elf90again", "elf90"],
    ["elf90", "elf90debug"], ["elf90debug", "elf90"],
]
ties = ["ptx90", "ptx90again", "ptx90at9.0", "ptx90new", "ptx90a", "ptx90aagain", "ptx90anew"]
CASES += [[a, b] for a in ties for b in ties if a != b]
CASES += [
    ["ptx90", "ptx90again", "ptx90at9.0"], ["ptx90at9.0", "ptx90", "ptx90again"], ["ptx90", "ptx90at9.0", "ptx90again"],
    ["ptx90", "ptx80", "ptx90again"], ["ptx86", "ptx86again"], ["ptx86again", "ptx86"], ["ptx75new", "ptx80"],
    ["ptx80", "ptx75new"], ["elf90a", "elf90debug"], ["ptx86", "ptx80new"], ["ptx80new", "ptx86"],
    ["ptx90new", "ptx90a"], ["ptx90anew", "elf90"],
]
numbers = random.Random(1)
while len(CASES) < 260:
    subset = numbers.sample(sorted(IMAGES), numbers.randint(2, 7))
    if subset not in CASES:
        CASES.append(subset)


def combine(number):
    names = CASES[number]
    path = os.path.join(cases, f"{number:03}.fatbin")
    images = []
    for name in names:
        kind, arch, _, _ = IMAGES[name]
        images.append(f"--image3=kind={kind},sm={arch},file={os.path.join(work, name)}")
    mode = ["balance", "speed", "size", "none"][number % 4]
    concat = ["--concat"] if number % 5 == 4 and mode != "none" else []
    result = subprocess.run(
        [fatbinary, "-64", f"--compress-mode={mode}", *concat, f"--create={path}", *images], capture_output=True, text=True
    )
    # The tool refuses some combinations, such as two images for one architecture.
    if result.returncode:
        print("not made:", " ".join(names), (result.stdout + result.stderr).strip())
        if os.path.exists(path):
            os.remove(path)
    return None if result.returncode else (os.path.basename(path), names)


with ThreadPoolExecutor(2) as pool:
    made = dict(case for case in pool.map(combine, range(len(CASES))) if case)
shutil.rmtree(work)


def ask(*args):
    result = subprocess.run([tool, *args], capture_output=True, text=True)
    if not result.stdout:
        sys.exit(result.stderr)
    return json.loads(result.stdout)


inspected = {os.path.basename(f["file"]): f for f in ask("inspect", "--json", "--kernels", cases)}
answers = ask("why", "--json", "--device", "sm_90", "--driver", "13.0", cases)
predicted = {}
for answer in answers:
    name = os.path.basename(answer["file"])
    (container,) = answer["containers"]
    chosen = container["chosen"]
    image = None
    entries = inspected[name]["containers"][0]["entries"]
    if chosen:
        ids = [k["name"] for k in entries[chosen["index"]]["kernels"] if k["name"].startswith("image_")]
        image = int(ids[0].removeprefix("image_"))
    predicted[name] = {
        "images": made[name],
        "stored": [f"{e['kind']} {e['arch']} {e['version']} {e['codec']}" for e in entries],
        "answer": image,
        "runs": answer["runs"],
        "rejected": container["rejected"],
    }
with open(os.path.join(out, "predicted.json"), "w") as file:
    json.dump({"numbers": {v: k for k, v in NUMBER.items()}, "cases": predicted}, file, indent=1)

# Containers of programs, with the kernels of the image that an sm_90 loads.
os.makedirs(os.path.join(out, "params"))
params = []
for program in programs:
    for report in ask("inspect", "--json", "--kernels", "--select", "sm_90", "--driver", "13.0", program):
        for container in report["containers"]:
            chosen = container["selection"]["chosen"]
            if not chosen or container["section"] == "__nv_relfatbin":
                continue
            kernels = container["entries"][chosen["index"]]["kernels"]
            if not kernels:
                continue
            name = f"{os.path.basename(program)}.{container['number']}.fatbin"
            with open(program, "rb") as source, open(os.path.join(out, "params", name), "wb") as file:
                source.seek(container["offset"])
                file.write(source.read(container["size"]))
            params.append({"file": name, "kernels": kernels})
with open(os.path.join(out, "params.json"), "w") as file:
    json.dump(params, file, indent=1)
print(f"{len(predicted)} containers, {len(params)} files with {sum(len(p['kernels']) for p in params)} kernels")
