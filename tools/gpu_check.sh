#!/usr/bin/env bash
# Everything that only a GPU can show, in one command and under 9 minutes: builds with CUDA, holds convolutions of networks' sizes against
# simpler kernels and leaves out of the rest what is wrong there, compares every kernel with the reference,
# runs the short list under compute-sanitizer, trains the embedded data set, then times convolutions, steps, inference and the loader.
#   tools/gpu_check.sh [REPORT_FOLDER]     default: build/gpu_report
# REPORT_FOLDER/report.md says what was done and what was not; beside it lie the logs. Ends with 0 only when all that ran passed; with 3
# where there is no device or no CUDA toolkit.
#   GPU_CHECK_ONLY=REGEX       only the steps whose names match, for a second look
#   GPU_CHECK_LIMIT=SECONDS    of all steps together (530)
#   GPU_CHECK_PROGRAMS=FOLDER  programs that tools/gpu_pack.sh made on another machine: nothing is installed or built here
set -uo pipefail
report=${1:+$(realpath -m "$1")}
cd "$(dirname "$0")/.." || exit 1
report=${report:-$PWD/build/gpu_report}
limit=${GPU_CHECK_LIMIT:-530}
only=${GPU_CHECK_ONLY:-.}

stop() { echo "gpu_check: $*" >&2; exit 3; }

# ---- what must be there -------------------------------------------------------------------------------------------------------------
if command -v nvidia-smi >/dev/null; then
  devices=$(nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total --format=csv,noheader 2>&1) ||
    stop "no usable CUDA device on this machine; nvidia-smi says: ${devices:-nothing}"
  [[ -n "$devices" ]] || stop "no CUDA device on this machine: nvidia-smi lists none"
elif [[ -e /dev/nvidiactl || -e /dev/dxg ]]; then
  devices="a device, but no nvidia-smi to name it"
else
  stop "no CUDA device on this machine (no nvidia-smi and no driver). Run this where there is one; without one tools/test.sh proves what can be proven."
fi
if [[ -z "${GPU_CHECK_PROGRAMS:-}" ]]; then
  nvcc=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null) ||
    stop "there is a device, but no nvcc on PATH, in CUDA_HOME or in /usr/local/cuda: install the CUDA toolkit (12 or newer)"
  if command -v apt-get >/dev/null; then
    tools/install_deps.sh || stop "tools/install_deps.sh could not install what the build needs (see above)"
  else
    for tool in cmake ninja c++ pkg-config; do
      command -v "$tool" >/dev/null || stop "$tool is missing, and there is no apt-get to install it"
    done  # the libraries are looked for by cmake, which names what is missing
  fi
fi

mkdir -p "$report" || stop "the report folder $report cannot be made"
rm -f "$report"/*.log "$report"/*.row "$report"/*.refused.txt "$report"/report.md
runs=$report/runs
failed=0
table=""

# run_step NAME SECONDS COMMAND...: at most that long; the output goes to NAME.log, a row for the table to NAME.row.
run_step() {
  local name=$1 most=$2 began=$SECONDS status outcome
  shift 2
  local left=$((limit - SECONDS))
  if ((left < 5)); then
    echo "| $name | **not run**: out of time | |" >"$report/$name.row"
    return 1
  fi
  ((most < left)) || most=$left
  echo "gpu_check: $name ..." >&2
  timeout -k 5 "$most" "$@" >"$report/$name.log" 2>&1
  status=$?
  case $status in
    0) outcome=passed ;;
    124 | 137) outcome="**FAILED**: not done after $most s" ;;
    *) outcome="**FAILED** with $status" ;;
  esac
  echo "| $name | $outcome | $((SECONDS - began)) s |" >"$report/$name.row"
  if ((status != 0)); then
    { echo "---- $name: the end of its output"; tail -n 15 "$report/$name.log"; } >&2
    # Once more, waiting for every kernel and naming each before it starts: the log names the one that fails, or does not end.
    if [[ "$1" == "$test_cuda" ]]; then
      TESSERA_SYNC=2 timeout -k 5 30 "$@" >"$report/$name.sync.log" 2>&1
      { echo "---- $name, kernel by kernel: the end of its output"; tail -n 5 "$report/$name.sync.log"; } >&2
    fi
  fi
  return $status
}
wanted() { [[ "$1" =~ $only ]]; }
step() { # run_step, now; 0 also when it is not wanted
  wanted "$1" || return 0
  run_step "$@"
  local status=$?
  take "$1"
  return $status
}
begun=()
begin() { # run_step beside the others that were begun: where not time is measured, but who is right
  wanted "$1" || return 0
  run_step "$@" &
  begun+=("$1")
}
take() {
  local row
  row=$(cat "$report/$1.row")
  rm -f "$report/$1.row"
  table+="$row"$'\n'
  [[ "$row" == *"| passed |"* ]] || failed=1
}
collect() {
  wait
  for name in "${begun[@]}"; do take "$name"; done
  begun=()
}
skip() {
  wanted "$1" || return 0
  echo "gpu_check: $1 skipped: $2" >&2
  table+="| $1 | skipped: $2 | |"$'\n'
}

# ---- build: for this device only, which is faster --------------------------------------------------------------------------------------
capability=$(sed -n '1s/^[^,]*, *\([0-9]*\)\.\([0-9]\),.*/\1\2/p' <<<"$devices")
export TESSERA_REQUIRE_DEVICE=1
built=0
if [[ -n "${GPU_CHECK_PROGRAMS:-}" ]]; then
  programs=$(realpath "$GPU_CHECK_PROGRAMS") || stop "no folder $GPU_CHECK_PROGRAMS"
  test_cuda=$programs/bin/test_cuda
  [[ -x $test_cuda ]] || stop "no programs in $programs: tools/gpu_pack.sh makes them"
  # The vendor's libraries may be there as Python packages only.
  vendor=$(python3 -c 'import glob, sysconfig; print(":".join(glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib")))' 2>/dev/null)
  library_path=${LD_LIBRARY_PATH:-}
  export LD_LIBRARY_PATH="$programs/lib${vendor:+:$vendor}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export TESSERA_SOURCE_DIR=$PWD  # where the tests seek their golden values
  table+="| build | skipped: programs of another machine | |"$'\n'
  built=1
else
  programs=build/gpu
  test_cuda=$programs/bin/test_cuda
  architecture=()
  [[ -n "$capability" ]] && architecture=(-DCMAKE_CUDA_ARCHITECTURES="$capability")
  run_step configure 60 cmake -S . -B $programs -G Ninja -DCMAKE_BUILD_TYPE=Release -DTESSERA_CUDA=ON -DTESSERA_TESTS=ON "${architecture[@]}"
  take configure
  ((failed)) || { run_step build 360 cmake --build $programs --target tessera test_cuda test_cuda_resources cuda_ladder && built=1; take build; }
fi
tessera=$programs/bin/tessera

if ((built)); then
  # ---- convolutions at the sizes of networks: kernels that are wrong there, or do not end, are left out of all that follows -------------
  step info 30 "$tessera" info
  sizes=("pointwise:1x1" "patches:3x3 of few channels" "deep:3x3 of many channels" "stride2:3x3 at stride 2" "others:x at batch 64")
  for entry in "${sizes[@]}"; do begin "sizes_${entry%%:*}" 60 "$test_cuda" --test-case="real sizes?${entry#*:}"; done
  collect
  without=
  for entry in "${sizes[@]}"; do
    kind=${entry%%:*}
    [[ "$table" != *"| sizes_$kind | "* || "$table" == *"| sizes_$kind | passed |"* ]] && continue
    if [[ $kind != others ]]; then
      without+=,$kind
      TESSERA_CUDA_WITHOUT=$kind step "sizes_${kind}_without" 40 "$test_cuda" --test-case="real sizes?${entry#*:}" && continue
    fi
    without+=,tiles,filters
  done
  if [[ -n $without ]]; then
    export TESSERA_CUDA_WITHOUT=${without#,}
    echo "gpu_check: TESSERA_CUDA_WITHOUT=$TESSERA_CUDA_WITHOUT from here on" >&2
    table+="| from here on | **TESSERA_CUDA_WITHOUT=$TESSERA_CUDA_WITHOUT** | |"$'\n'
  fi

  # ---- right: all at once, each test case a process of its own, for a kernel that fails takes its process with it ------------------------
  export TESSERA_THREADS=2
  while IFS= read -r name; do
    slug=$(tr -cs 'a-z0-9' '_' <<<"${name,,}")
    begin "case_${slug:0:40}" 100 "$test_cuda" --test-case="${name//,/?}"
  done < <("$test_cuda" --list-test-cases | sed '1,/^=/d; /^=/,$d' | grep -v -e 'short list' -e 'op rates' -e 'cuBLASLt: ' -e 'real sizes')
  for kernels in naive direct cudnn; do
    TESSERA_CONV=$kernels begin conv_$kernels 120 "$test_cuda" --test-case='convolution and matrix kernels'
    # cuDNN's bits repeat when it is asked to.
    TESSERA_CONV=$kernels TESSERA_DETERMINISTIC=1 begin steps_$kernels 120 "$test_cuda" --test-case='training step*'
  done
  CUBLASLT_LOG_LEVEL=2 begin cublaslt_wants 30 "$test_cuda" --no-skip --test-case='cuBLASLt: *'
  TESSERA_CONV=cudnn TESSERA_DETERMINISTIC=1 begin conv_cudnn_deterministic 120 "$test_cuda" --test-case='convolution and matrix kernels'
  sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2>/dev/null)
  if [[ -n "$sanitizer" ]]; then
    for tool in memcheck racecheck synccheck; do
      TESSERA_CUDA_CACHE=0 begin $tool 120 "$sanitizer" --tool $tool --error-exitcode 9 "$test_cuda" --no-skip --test-case='short list'
    done
  else
    skip compute-sanitizer "not on PATH and not in ${CUDA_HOME:-/usr/local/cuda}/bin"
  fi
  # The embedded data set to the bars of tools/quickstart.sh, in bf16, with images made on the device, and the program with its weights.
  rm -rf "$runs"
  train=("$tessera" train --data shapes --device cuda --precision bf16 --project "$runs" --log text)
  # shellcheck disable=SC2016
  begin quickstart_and_program 200 bash -c '"${@:3}" --cfg docs/quickstart.yaml --name quickstart --augment cuda &&
    tools/gpu_check_program.sh "$3" "$1" cuda "$2/quickstart/weights/best.safetensors"' _ "$report/program" "$runs" "${train[@]}"
  collect
  unset TESSERA_THREADS
  [[ -x $programs/bin/test_cuda_resources && -z "${GPU_CHECK_PROGRAMS:-}" ]] &&
    step resources 20 "$programs/bin/test_cuda_resources" --test-case='compiled kernels'

  step quickstart_bars 5 python3 -c "
import json, sys
m = json.load(open('$runs/quickstart/metrics.json'))
print({k: m[k] for k in ('box', 'mask', 'images_per_s') if k in m})
sys.exit(not (m['box']['map'] >= 0.70 and m['mask']['map'] >= 0.60))"

  # ---- fast: one after the other --------------------------------------------------------------------------------------------------------
  step ladder 40 "$programs/bin/cuda_ladder"
  step op_rates 40 "$test_cuda" --no-skip --test-case='op rates'
  bench() {  # NAME SECONDS WHAT SCALE BATCH CONV ARGUMENT...
    step "$1" "$2" "$tessera" bench "$3" --model "yolov8$4-seg" --batch "$5" --device cuda --precision bf16 --conv "$6" "${@:7}"
  }
  # Where the time of n goes; its steps and convolutions by each kind of kernels; then the original's step beside them.
  bench profile_step 30 step n 16 own --runs 5 --profile 5
  bench profile_infer 30 infer n 32 own --runs 5 --profile 5
  # The gradients of weights beside the chain, in turn, and in smaller and larger groups (TESSERA_CUDA_SIDE).
  for calls in 0 4 16; do TESSERA_CUDA_SIDE=$calls bench bench_step_n_16_side_$calls 20 step n 16 own --runs 10 --json; done
  # Kernel by kernel, in turn. Some 30 ms a kernel.
  if command -v ncu >/dev/null; then
    # shellcheck disable=SC2016
    TESSERA_CUDA_SIDE=0 step kernels 70 bash -c '
      ncu --clock-control none --cache-control none --launch-skip 1300 --launch-count 1000 --csv --log-file "$1/kernels.csv" \
        --metrics gpu__time_duration.sum,dram__bytes.sum,launch__registers_per_thread "${@:3}" && "$2/tools/kernel_times.py" "$1/kernels.csv"' \
      _ "$report" "$PWD" "$tessera" bench step --model yolov8n-seg --batch 16 --device cuda --precision bf16 --runs 2
  else
    skip kernels "no ncu on PATH"
  fi
  for kernels in own direct cudnn; do
    bench "bench_step_n_16_$kernels" 40 step n 16 "$kernels" --runs 10 --json
    bench "conv_table_$kernels" 60 op n 16 "$kernels" --runs 3 --json
  done
  # PyTorch with this machine's libraries, not with those of the programs.
  torch_step=(env LD_LIBRARY_PATH="${library_path-${LD_LIBRARY_PATH:-}}" python3 bench/peers/torch_step.py n 16 --device cuda --dtype bf16 --layout nhwc --steps 20)
  peer=
  if wanted torch_step || wanted torch_step_compiled; then
    export YOLO_CONFIG_DIR="$report/ultralytics" YOLO_OFFLINE=true
    mkdir -p "$YOLO_CONFIG_DIR"  # else the import prints
    if "${torch_step[@]:0:3}" -c 'import torch, ultralytics; assert torch.cuda.is_available()' >"$report/torch_step.refused.txt" 2>&1; then
      peer=1
    else
      skip torch_step "no PyTorch with CUDA and ultralytics for this python3"
    fi
  fi
  [[ -n $peer ]] && step torch_step 60 "${torch_step[@]}"
  # Whole steps and inference of all scales by what runs when nobody chooses, a few seconds each; the largest by cuDNN too.
  for scale in n s m l x; do
    for batch in 16 64; do bench bench_step_${scale}_$batch 20 step $scale $batch own --runs 5 --json; done
    for batch in 1 32; do bench bench_infer_${scale}_$batch 15 infer $scale $batch own --runs 10 --json; done
  done
  bench bench_step_x_16_cudnn 45 step x 16 cudnn --runs 5 --json
  # Whether the loader keeps up: the same epochs with images made by the host's threads and by the device.
  for where in cpu cuda; do
    step train_loader_$where 40 "${train[@]}" --name loader_$where --imgsz 640 --batch 16 --epochs 3 --no-val --no-plots --workers "$(nproc)" --augment $where
  done
  [[ -n $peer ]] && step torch_step_compiled 150 "${torch_step[@]}" --compile
fi

# ---- report ----------------------------------------------------------------------------------------------------------------------------
{
  echo "# GPU check"
  echo
  echo "- devices: ${devices//$'\n'/; }"
  [[ -n "${nvcc:-}" ]] && echo "- compiler: $("$nvcc" --version | tail -n 2 | head -n 1)"
  echo "- source: $(git describe --always --dirty=', with changes' 2>/dev/null || echo 'not a git checkout')"
  echo "- date: $(date -u +%Y-%m-%dT%H:%MZ), $SECONDS s in all"
  echo
  echo "| step | outcome | time |"
  echo "|---|---|---|"
  printf '%s' "$table"
  if grep -qs 'no kernel yet' "$report"/case_*.log; then
    echo
    echo "Methods without a kernel in this source, so not checked: $(sed -n 's/.*no kernel yet for //p' "$report"/case_*.log | sort -u | paste -sd' ')"
  fi
  echo
  echo "Not there to be run yet: several devices (NCCL)."
  if [[ -f "$report/resources.log" ]]; then
    echo
    echo "## Kernels"
    echo
    grep '^|' "$report/resources.log"
  fi
  if [[ -f "$report/op_rates.log" ]]; then
    echo
    echo "## Rates of the op cases"
    echo
    echo "From the call until the device is done, best of five; small cases show the launch, not the kernel."
    echo
    echo '```'
    grep 'GB/s' "$report/op_rates.log"
    echo '```'
  fi
  for name in loader_cpu loader_cuda; do
    [[ -f "$runs/$name/metrics.json" ]] && echo && echo "$name: $(python3 -c "import json; print(json.load(open('$runs/$name/metrics.json'))['images_per_s'])") images/s in training"
  done
  [[ -f "$report/ladder.log" ]] && { echo; echo "## Ladders"; echo; sed 's/^/    /' "$report/ladder.log"; }
  for name in kernels profile_step profile_infer; do
    [[ -f "$report/$name.log" ]] && { echo; echo "## $name"; echo; sed 's/^/    /' "$report/$name.log"; }
  done
  for log in "$report"/bench_*.log "$report"/conv_table_*.log "$report"/torch_step*.log; do
    grep -q '^{' "$log" 2>/dev/null && { echo; echo "$(basename "$log" .log):"; echo; grep '^{' "$log" | sed 's/^/    /'; }
  done
} >"$report/report.md"

echo "gpu_check: report in $report/report.md" >&2
if ((failed)); then
  echo "gpu_check: FAILED" >&2
  exit 1
fi
echo "gpu_check: all that ran passed" >&2
