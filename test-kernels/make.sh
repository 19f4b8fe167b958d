#!/bin/sh
# Makes the golden files of the fatbin tests: sh test-kernels/make.sh NVCC [OUT]
# NVCC is the nvcc of a CUDA 13.5 toolkit (other versions make other bytes); OUT defaults to fatbin/tests/data.
set -eu
nvcc=$1
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "${2:-$here/../fatbin/tests/data}" && cd "${2:-$here/../fatbin/tests/data}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here"/*.cu "$work"
cd "$work"

ptx75='-gencode arch=compute_75,code=compute_75'
host=-fPIC,-fvisibility=hidden,-Os,-g0,-fno-exceptions,-fno-asynchronous-unwind-tables
sass75='-gencode arch=compute_75,code=sm_75'
fatbin() { # OUTPUT SOURCE OPTIONS...
    name=$1 source=$2
    shift 2
    "$nvcc" -fatbin "$@" "$source" -o "$out/$name"
}

fatbin nothing.fatbin nothing.cu $ptx75 $sass75
fatbin tiny_speed.fatbin tiny.cu $ptx75 --compress-mode=speed
fatbin tiny_balance.fatbin tiny.cu $ptx75 --compress-mode=balance -Xptxas -v,-O1
fatbin tiny_size.fatbin tiny.cu $ptx75 $sass75 --compress-mode=size
fatbin tiny_none.fatbin tiny.cu $ptx75 --compress-mode=none
fatbin sass.fatbin nothing.cu $sass75 --compress-mode=size
fatbin two_archs.fatbin nothing.cu $sass75 -gencode arch=compute_80,code='[sm_80,compute_80]' --compress-mode=size
fatbin variants.fatbin nothing.cu -gencode arch=compute_90a,code='[sm_90a,compute_90a]' \
    -gencode arch=compute_100f,code='[sm_100f,compute_100f]' --compress-mode=size
fatbin concat.fatbin nothing.cu $sass75 -gencode arch=compute_80,code='[sm_80,compute_80]' \
    -gencode arch=compute_90,code='[sm_90,compute_90]' --compress-mode=size --concat

fatbin params.fatbin params.cu $ptx75 $sass75 --compress-mode=size
fatbin debug.fatbin debug.cu -G $sass75 --compress-mode=size

# Managed variables: by way of a constant bank, and in instructions; with relocations of both forms.
sass90='-gencode arch=compute_90,code=sm_90'
fatbin managed.fatbin managed.cu $sass75 $sass90 --compress-mode=size
fatbin managed_code.fatbin managed.cu -G $sass75 $sass90 --compress-mode=size
fatbin managed_address.fatbin managed_address.cu $sass90 --compress-mode=size

# A host library without the CUDA runtime: its symbols stay undefined, which is enough to read the file.
# -rdc=true: version-2 wrapper, PTX in __nv_relfatbin only.
for unit in rdc_a rdc_b; do
    "$nvcc" -rdc=true -c $ptx75 $sass75 --compress-mode=size -Xcompiler "$host" $unit.cu -o $unit.o
done
"$nvcc" -dlink $sass75 --compress-mode=size -Xcompiler "$host" rdc_a.o rdc_b.o -o rdc_link.o
gcc -shared -nostdlib -s -Wl,-z,noseparate-code -Wl,-z,max-page-size=4096,-z,norelro,--no-eh-frame-hdr -Wl,--build-id=none,--hash-style=sysv \
    rdc_a.o rdc_b.o rdc_link.o -o rdc.so
strip -R .comment -R .eh_frame -R .eh_frame_hdr -R .gcc_except_table rdc.so -o "$out/rdc.so"
"$nvcc" -c $ptx75 --compress-mode=size -Xcompiler "$host" tiny.cu -o tiny.o
strip --strip-unneeded -R .eh_frame -R .gcc_except_table -R .comment -R .note.GNU-stack tiny.o -o "$out/tiny.o"
ls -l "$out"
