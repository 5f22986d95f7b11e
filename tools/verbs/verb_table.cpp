#include "tools/verbs/verb_table.h"

#include "tools/verbs/verbs.h"

namespace tessera {

namespace {

constexpr VerbEntry kVerbs[] = {
    {"train", kTrain, run_train, "Trains YOLOv8-seg, validates after each epoch and leaves a run folder.",
     "  train_seg --data coco128-seg.yaml --epochs 100 --imgsz 640\n"
     "  train_seg --data shapes --epochs 40 --imgsz 160            # the embedded data set, nothing to download\n"
     "  train_seg --model yolov8s-seg.pt --data my.yaml            # start from weights of the original\n"
     "  train_seg --resume runs/segment/train                      # go on, bit for bit\n"
     "  mpirun -n 2 --bind-to none train_seg --data my.yaml        # two processes, each with half of every batch\n"},
    {"val", kVal, run_val, "Box and mask mAP of a model on a split, or of any COCO result file.",
     "  val_seg --model runs/segment/train/weights/best.safetensors --data coco128-seg.yaml\n"
     "  val_seg --model yolov8n-seg.pt --data coco.yaml --map-style original\n"
     "  val_seg --gt instances_val2017.json --predictions results.json\n"},
    {"predict", kPredict, run_predict, "Masks, contours, classes and confidences of images.",
     "  predict_seg --model best.safetensors --source photo.jpg\n"
     "  predict_seg --model best.safetensors --source 'photos/*.jpg' --save-txt --save-json --conf 0.4\n"},
    {"export", kExport, run_export, "Writes a trained model as ONNX, reads the file back and compares what it gives with the model.",
     "  tessera export --model runs/segment/train/weights/best.safetensors              # best.onnx beside it\n"
     "  tessera export --model best.safetensors --imgsz 480,640 --batch 4 --half        # for a GPU, one fixed size\n"
     "  tessera export --model yolov8n-seg.pt --dynamic --output out/n.onnx             # any size and batch\n"
     "  predict_seg --model best.onnx --source photo.jpg                                # the file runs here too, on the CPU\n"},
    {"convert", kConvert, run_convert, "COCO JSON or mask images to YOLO labels, and back to COCO JSON; says what a conversion lost.",
     "  tessera convert --from annotations/instances_val2017.json --to my-set --images val2017\n"
     "  tessera convert --from annotations --to my-set --images images   # every *.json there is a split\n"
     "  tessera convert --from masks --to my-set --images photos         # grey value = class + 1\n"
     "  tessera convert --from my-set/data.yaml --split val --to instances_val.json\n"},
    {"lint", kLint, run_lint, "Findings in a data set, each with file and line, and with --fix a remedy.",
     "  tessera lint --data my-set/data.yaml\n  tessera lint --data my-set/data.yaml --fix\n  tessera lint --data coco128-seg.yaml --split train --json\n"},
    {"inspect", kInspect, run_inspect, "Layers, shapes, parameters, FLOP and bytes of a model.",
     "  tessera inspect --model yolov8s-seg --imgsz 640\n  tessera inspect --model best.safetensors --json\n"},
    {"bench", kBench, run_bench,
     "Times a training step, inference, single kernels, the loader or the evaluation, beside their bound.",
     "  tessera bench step --model yolov8n-seg --imgsz 640 --batch 16\n  tessera bench infer --batch 1 --json\n"
     "  tessera bench loader --data coco128-seg.yaml\n",
     "what"},
    {"download", kDownload, run_download, "Fetches data sets and weights by URL and verifies them: the one verb that uses the network.",
     "  tessera download --data coco128-seg.yaml                                # into datasets/, unpacked, then says what it found\n"
     "  tessera download --data my.yaml --data-root /data                       # the addresses under its key download:\n"
     "  tessera download --model yolov8n-seg.pt                                 # weights of the original (AGPL-3.0)\n"
     "  tessera download https://host/set.zip --sha256 HEX --unpack --to sets   # any file; again after Ctrl-C: goes on\n"},
    {"completion", kCompletion, run_completion, "Prints what makes a shell complete verbs, arguments and their values.",
     "  source <(tessera completion bash)                                            # in ~/.bashrc\n"
     "  tessera completion zsh > ~/.zfunc/_tessera                                   # a folder of $fpath\n"
     "  tessera completion fish > ~/.config/fish/conf.d/tessera.fish\n",
     "shell"},
    {"man", kMan, run_man, "Prints the manual page.", "  tessera man | man -l -\n"},
    {"selftest", kSelftest, run_selftest, "Checks kernels, gradients and determinism on this machine.", "  tessera selftest\n"},
    {"info", kInfo, run_info, "Build, CPU, backends, libraries and environment switches.", "  tessera info --json\n"},
};

constexpr std::string_view kFurtherNames[] = {"train_seg", "val_seg", "predict_seg", "export_seg"};

}  // namespace

std::span<const VerbEntry> verb_entries() { return kVerbs; }
std::vector<std::string_view> verbs_of(const OptionSpec& option) {
  std::vector<std::string_view> names;
  for (const VerbEntry& v : kVerbs) {
    if (option.verbs & v.verb) names.push_back(v.name);
  }
  return names;
}
std::span<const std::string_view> further_names() { return kFurtherNames; }

}  // namespace tessera
