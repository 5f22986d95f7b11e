#!/usr/bin/env bash
# The program as a user meets it on a device: the same results as on the CPU, a killed training that goes on bit for bit, and errors.
#   tools/gpu_check_program.sh TESSERA FOLDER [DEVICE [WEIGHTS]]     default: cuda, those it trains; part of tools/gpu_check.sh
set -uo pipefail
tessera=$1
folder=$2
device=${3:-cuda}
rm -rf "$folder"
mkdir -p "$folder" || exit 1
failed=0
check() { # WHAT STATUS
  local result=passed
  (($2 == 0)) || { result=FAILED; failed=1; }
  echo "$result: $1"
}
train=("$tessera" train --data shapes --imgsz 96 --batch 16 --epochs 12 --no-plots --seed 3 --device "$device" --project "$folder")

# ---- killed and resumed: not a bit differs from a run that was let be
"${train[@]}" --precision bf16 --name whole --log text >"$folder/whole.txt" 2>&1
check "a training on $device" $?
"${train[@]}" --precision bf16 --name cut --log text >"$folder/cut.txt" 2>&1 &
training=$!
for ((i = 0; i < 600; ++i)); do
  (($(wc -l 2>/dev/null <"$folder/cut/results.csv" || echo 0) >= 5)) && break
  sleep 0.02
done
kill -9 $training 2>/dev/null
check "killed while it trained" $?
wait $training 2>/dev/null
"$tessera" train --resume "$folder/cut" --device "$device" --log text >"$folder/resumed.txt" 2>&1
check "resumed" $?
python3 - "$folder/whole/weights/last.safetensors" "$folder/cut/weights/last.safetensors" <<'P'
import json, struct, sys
def tensors(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    return {k: data[8 + size + v["data_offsets"][0] : 8 + size + v["data_offsets"][1]] for k, v in header.items() if k != "__metadata__"}
whole, cut = map(tensors, sys.argv[1:])
differing = [k for k in whole if whole[k] != cut.get(k)]
print(f"{len(whole)} tensors, {len(differing)} differ", *differing[:5])
sys.exit(bool(differing) or whole.keys() != cut.keys())
P
check "resumed to the bits of a training that was not killed" $?

# ---- the same figures as on the CPU
weights=${4:-$folder/whole/weights/last.safetensors}
for where in "$device" cpu; do
  "$tessera" val --model "$weights" --data shapes --imgsz 160 --precision fp32 --device "$where" --json >"$folder/val_$where.json" 2>"$folder/val_$where.txt"
  check "validation on $where" $?
done
python3 - "$folder/val_$device.json" "$folder/val_cpu.json" <<'P'
import json, sys
one, other = (json.load(open(p)) for p in sys.argv[1:])
worst = max(abs(one[part][key] - other[part][key]) for part in ("box", "mask") for key in ("map", "map50", "map75"))
print("box", one["box"]["map"], "mask", one["mask"]["map"], "differs by", worst)
sys.exit(not worst <= 2e-3)  # a detection at the edge of a threshold
P
check "validation has the figures of the CPU" $?

# ---- errors
"$tessera" train --data shapes --device 99 --project "$folder" >"$folder/no_device.txt" 2>&1
[[ $? == 2 ]] && grep -q 99 "$folder/no_device.txt"
check "a device that is not there is an error of usage" $?
"$tessera" train --data shapes --device "$device" --imgsz 1280 --batch 4000 --project "$folder" >"$folder/no_memory.txt" 2>&1
[[ $? == 4 ]] && grep -q -- --batch "$folder/no_memory.txt"
check "a batch that does not fit is refused with the one that would" $?
exit $failed
