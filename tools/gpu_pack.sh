#!/usr/bin/env bash
# The programs that tools/gpu_check.sh runs, with the libraries they need, for a machine that has a GPU and lacks the means to build:
#   tools/gpu_pack.sh FOLDER [ARCHITECTURE]     default: 90, of an H100 or H200; 80 of an A100
# makes FOLDER/tessera_gpu.tar.xz. There, in the same source:
#   mkdir build/pack && tar -xJf tessera_gpu.tar.xz -C build/pack && GPU_CHECK_PROGRAMS=build/pack tools/gpu_check.sh
# Needs what a build with CUDA needs, and no GPU. The C library and libstdc++ there must not be older than here.
set -euo pipefail
[[ $# -ge 1 && "$1" != -* ]] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
target=$(realpath -m "$1")
architecture=${2:-90}
cd "$(dirname "$0")/.."
build=build/gpu_pack
programs=(tessera test_cuda cuda_ladder test_ops test_train)  # the last two for bench/amx.sh, where the processor has tiles
# RPATH, not RUNPATH: it holds for the libraries of libraries too.
# shellcheck disable=SC2016
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DTESSERA_CUDA=ON -DTESSERA_TESTS=ON -DCMAKE_CUDA_ARCHITECTURES="$architecture" \
  -DCMAKE_BUILD_RPATH='$ORIGIN/../lib' -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags >/dev/null
cmake --build $build --target "${programs[@]}"
packed=$build/packed
rm -rf $packed
mkdir -p $packed/bin $packed/lib "$target"
for program in "${programs[@]}"; do strip -o "$packed/bin/$program" "$build/bin/$program"; done
ldd $packed/bin/* | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | sort -u |
  grep -v -E '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so' | xargs -I{} cp -L {} $packed/lib
tar -cJf "$target/tessera_gpu.tar.xz" -C $packed bin lib
ls -l "$target/tessera_gpu.tar.xz"
