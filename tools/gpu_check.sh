#!/usr/bin/env bash
# Everything that only a GPU can show, in one command and under 9 minutes: builds with CUDA, compares every kernel with the reference,
# runs the short list under compute-sanitizer, trains the embedded data set, then times convolutions, steps, inference and the loader.
#   tools/gpu_check.sh [REPORT_FOLDER]     default: build/gpu_report
# REPORT_FOLDER/report.md says what was done and what was not; beside it lie the logs. Ends with 0 only when all that ran passed; with 3
# where there is no device or no CUDA toolkit.
set -uo pipefail
report=${1:+$(realpath -m "$1")}
cd "$(dirname "$0")/.." || exit 1
report=${report:-$PWD/build/gpu_report}
limit=530  # seconds, of all steps together

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
nvcc=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null) ||
  stop "there is a device, but no nvcc on PATH, in CUDA_HOME or in /usr/local/cuda: install the CUDA toolkit (12 or newer)"
if command -v apt-get >/dev/null; then
  tools/install_deps.sh || stop "tools/install_deps.sh could not install what the build needs (see above)"
else
  for tool in cmake ninja c++ pkg-config; do
    command -v "$tool" >/dev/null || stop "$tool is missing, and there is no apt-get to install it"
  done  # the libraries are looked for by cmake, which names what is missing
fi

mkdir -p "$report" || stop "the report folder $report cannot be made"
rm -f "$report"/*.log "$report"/*.refused.txt "$report"/report.md
failed=0
table=""

# step NAME SECONDS COMMAND...: at most that long; the output goes to NAME.log, a row to the table.
step() {
  local name=$1 most=$2 began=$SECONDS status outcome
  shift 2
  local left=$((limit - SECONDS))
  if ((left < 5)); then
    table+="| $name | **not run**: out of time | |"$'\n'
    failed=1
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
  ((status == 0)) || { failed=1; tail -n 15 "$report/$name.log" >&2; }
  table+="| $name | $outcome | $((SECONDS - began)) s |"$'\n'
  return $status
}
skip() {
  echo "gpu_check: $1 skipped: $2" >&2
  table+="| $1 | skipped: $2 | |"$'\n'
}

# ---- build: for this device only, which is faster --------------------------------------------------------------------------------------
build=build/gpu
capability=$(sed -n '1s/.*, *\([0-9]*\)\.\([0-9]\),.*/\1\2/p' <<<"$devices")
architecture=()
[[ -n "$capability" ]] && architecture=(-DCMAKE_CUDA_ARCHITECTURES="$capability")
export TESSERA_REQUIRE_DEVICE=1
built=0
step configure 60 cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DTESSERA_CUDA=ON -DTESSERA_TESTS=ON "${architecture[@]}" &&
  step build 360 cmake --build $build --target tessera test_cuda test_cuda_resources cuda_ladder && built=1
test_cuda=$build/bin/test_cuda

if ((built)); then
  # ---- right ---------------------------------------------------------------------------------------------------------------------------
  step info 20 $build/bin/tessera info
  # What has never run on a GPU comes first: until this passes, --conv wgmma is nobody's business.
  if [[ "$capability" == 90 ]]; then
    TESSERA_CONV=wgmma step op_cases_wgmma 60 $test_cuda --test-case='convolution and matrix kernels'
  else
    skip op_cases_wgmma "for sm_90 only"
  fi
  step op_cases 150 $test_cuda --test-case-exclude='training step*,ten-step*'
  TESSERA_CONV=cudnn step op_cases_cudnn 120 $test_cuda --test-case='convolution and matrix kernels'
  TESSERA_CONV=cudnn TESSERA_DETERMINISTIC=1 step op_cases_cudnn_deterministic 60 $test_cuda --test-case='convolution and matrix kernels'
  step training_steps 60 $test_cuda --test-case='training step*'  # replayed against call by call, bf16 and fp16 beside fp32
  step trajectory 30 $test_cuda --test-case='ten-step*'  # against the original's stored numbers
  step ladder 40 $build/bin/cuda_ladder
  step resources 20 $build/bin/test_cuda_resources --test-case='compiled kernels'
  sanitizer=$(command -v compute-sanitizer || ls "$(dirname "$nvcc")/compute-sanitizer" 2>/dev/null)
  if [[ -n "$sanitizer" ]]; then
    for tool in memcheck racecheck synccheck; do
      TESSERA_CUDA_CACHE=0 step $tool 60 "$sanitizer" --tool $tool --error-exitcode 9 $test_cuda --no-skip --test-case='short list'
    done
  else
    skip compute-sanitizer "not on PATH and not beside nvcc"
  fi

  # The embedded data set to the bars of tools/quickstart.sh, in bf16, with pictures made on the device.
  runs=$report/runs
  rm -rf "$runs"
  train() {  # NAME SECONDS ARGUMENT...
    local name=$1 most=$2
    shift 2
    step "train_$name" "$most" $build/bin/tessera train --data shapes --device cuda --precision bf16 --project "$runs" --name "$name" --log text "$@"
  }
  train quickstart 90 --cfg docs/quickstart.yaml --augment cuda &&
    step quickstart_bars 5 python3 -c "
import json, sys
m = json.load(open('$runs/quickstart/metrics.json'))
print({k: m[k] for k in ('box', 'mask', 'images_per_s') if k in m})
sys.exit(not (m['box']['map'] >= 0.70 and m['mask']['map'] >= 0.60))"

  # ---- fast ----------------------------------------------------------------------------------------------------------------------------
  step op_rates 40 $test_cuda --no-skip --test-case='op rates'
  # Steps call by call and as a graph, and inference, of all scales.
  for scale in n s m l x; do
    for batch in 16 64; do
      step bench_step_${scale}_$batch 30 $build/bin/tessera bench step --model yolov8$scale-seg --batch $batch --device cuda --precision bf16 --runs 10 --json
    done
    for batch in 1 32; do
      step bench_infer_${scale}_$batch 20 $build/bin/tessera bench infer --model yolov8$scale-seg --batch $batch --device cuda --precision bf16 --runs 20 --json
    done
  done
  # Whether the loader keeps up: the same epochs with pictures made by the host's threads and by the device.
  for where in cpu cuda; do
    train loader_$where 40 --imgsz 640 --batch 16 --epochs 3 --no-val --no-plots --workers "$(nproc)" --augment $where
  done
  # The convolution table: every shape of n in bf16, by each kind of kernels.
  tables="own cudnn"
  [[ "$capability" == 90 ]] && tables+=" wgmma"
  for kernels in $tables; do
    step conv_table_$kernels 40 $build/bin/tessera bench op --model yolov8n-seg --batch 16 --device cuda --precision bf16 --conv $kernels --runs 5 --json
  done
  if python3 -c 'import torch, ultralytics; assert torch.cuda.is_available()' 2>/dev/null; then
    export YOLO_CONFIG_DIR="$report" YOLO_OFFLINE=true
    step torch_step 60 python3 bench/peers/torch_step.py n 16 --device cuda --dtype bf16 --layout nhwc --steps 20
    step torch_step_compiled 120 python3 bench/peers/torch_step.py n 16 --device cuda --dtype bf16 --layout nhwc --steps 20 --compile
  else
    skip torch_step "no PyTorch with CUDA and ultralytics for this python3"
  fi
fi

# ---- report ----------------------------------------------------------------------------------------------------------------------------
{
  echo "# GPU check"
  echo
  echo "- devices: ${devices//$'\n'/; }"
  echo "- compiler: $("$nvcc" --version | tail -n 2 | head -n 1)"
  echo "- source: $(git describe --always --dirty=', with changes' 2>/dev/null || echo 'not a git checkout')"
  echo "- date: $(date -u +%Y-%m-%dT%H:%MZ), $SECONDS s in all"
  echo
  echo "| step | outcome | time |"
  echo "|---|---|---|"
  printf '%s' "$table"
  if [[ -f "$report/op_cases.log" ]] && grep -q 'no kernel yet' "$report/op_cases.log"; then
    echo
    echo "Methods without a kernel in this source, so not checked: $(sed -n 's/.*no kernel yet for //p' "$report/op_cases.log" | sort -u | paste -sd' ')"
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
