#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "nn/io/pickle_globals.h"
#include "nn/io/safetensors.h"
#include "nn/io/torch_pt.h"
#include "tensor/base/file.h"
#include "tests/nn/io_helpers.h"

using namespace tessera;
using namespace std::string_literals;  // keeps the zero bytes of pickles

namespace {

TorchFile decode(const std::string& pickle) { return decode_torch({"x.pt", pickle, {}}); }

Pickle unpickle(const std::string& text) {
  static const StorageLookup none = [](const std::string&) { return nullptr; };
  return read_pickle(std::as_bytes(std::span(text)), none, "x.pt");
}

std::string error_text(const std::string& pickle) {
  return error_of([&] { decode(pickle); }).what();
}

}  // namespace

TEST_CASE(".pt: checkpoint of the trainer, ema in fp16 is used") {
  const TorchFile file = read_torch_pt(golden("pt/checkpoint.pt"));
  check_equal(read_safetensors(golden("pt/checkpoint.safetensors")).tensors, file.tensors);
  CHECK(file.tensors.begin()->name == "model.0.conv.weight");
  CHECK(file.tensors.begin()->tensor.dtype() == DType::kF16);
  CHECK(file.used == "ema");
  CHECK(file.model_class == "ultralytics.nn.tasks.SegmentationModel");
  CHECK(file.head_class == "ultralytics.nn.modules.head.Segment");
  CHECK(file.names == std::map<int64_t, std::string>{{0, "cat"}, {1, "dög"}});
  CHECK(file.nc == 2);
  CHECK(file.stride == std::vector<double>{8, 16, 32});
  CHECK(file.scale == "n");
  CHECK(contains(file.yaml, R"("backbone":[[-1,1,"Conv",[64,3,2]]])"));
  CHECK(file.epoch == 2);
  CHECK(file.updates == 12);
  CHECK(file.best_fitness == 0.375);  // numpy.float64
  CHECK(file.version == "8.3.159");
  CHECK(file.train_args.at("data") == "coco8-seg.yaml");
  CHECK(file.train_args.at("lr0") == "0.01");
  CHECK(file.train_args.at("cos_lr") == "false");
  CHECK(file.train_args.at("time") == "null");
  CHECK(file.train_args.at("freeze") == "[0,1]");
}

TEST_CASE(".pt: fp16 becomes fp32 on request, integers stay") {
  const TorchFile half = read_torch_pt(golden("pt/checkpoint.pt"));
  const TorchFile full = read_torch_pt(golden("pt/checkpoint.pt"), {.to_f32 = true});
  const Tensor& a = half.tensors.at("model.0.conv.weight");
  const Tensor& b = full.tensors.at("model.0.conv.weight");
  REQUIRE(b.dtype() == DType::kF32);
  for (int64_t i = 0; i < a.numel(); ++i) CHECK(float(a.data<Half>()[i]) == b.data<float>()[i]);
  CHECK(full.tensors.at("model.0.bn.num_batches_tracked").dtype() == DType::kI64);
}

TEST_CASE(".pt: stripped file, protocol 4, channels-last filter, bound method") {
  const TorchFile file = read_torch_pt(golden("pt/stripped.pt"));
  CHECK(file.used == "model");
  CHECK(file.epoch == -1);
  CHECK_FALSE(file.updates.has_value());
  check_equal(read_safetensors(golden("pt/stripped.safetensors")).tensors, file.tensors);
  CHECK(file.tensors.contains("model.1.upsample.bias"));
  CHECK_FALSE(file.tensors.contains("model.1.scratch"));  // a buffer that is not persistent
}

TEST_CASE(".pt: bare state dict, every type, views of shared storage") {
  const TorchFile file = read_torch_pt(golden("pt/state_dict.pt"));
  CHECK(file.used.empty());
  check_equal(read_safetensors(golden("pt/state_dict.safetensors")).tensors, file.tensors);
}

TEST_CASE(".pt: what is not a checkpoint is named") {
  const TempFolder folder;
  const auto text_of = [](const std::filesystem::path& path) {
    const Error error = error_of([&] { read_torch_pt(path); });
    CHECK(error.code() == ErrorCode::kData);
    CHECK_FALSE(error.hint().empty());
    CHECK(error.where().file == path.string());
    return std::string(error.what());
  };
  CHECK(contains(text_of(golden("pt/legacy.pt")), "before version 1.6"));
  CHECK(contains(text_of(golden("pt/script.pt")), "TorchScript"));
  CHECK(contains(text_of(golden("pt/complex.pt")), "ComplexFloatStorage is not supported"));
  CHECK(contains(text_of(golden("pt/state_dict.safetensors")), "no zip archive"));
  const Error code = error_of([] { read_torch_pt(golden("pt/code.pt")); });
  CHECK(contains(code.what(), "holds code (posix.system)"));
  const auto written = [&](const std::string& content) {
    std::ofstream(folder / "x.pt") << content;
    return text_of(folder / "x.pt");
  };
  CHECK(contains(written(""), "empty"));
  CHECK(contains(written("<!DOCTYPE html>"), "web page"));
  CHECK(contains(written("version https://git-lfs.github.com/spec/v1\n"), "LFS"));
  const std::string good = read_file(golden("pt/state_dict.pt"));
  CHECK(contains(written(good.substr(0, good.size() / 2)), "damaged"));
  std::string flipped = good;
  flipped[good.find("data.pkl") + 80] ^= 1;
  CHECK(contains(written(flipped), "damaged"));
}

// Files of the original's own classes, and some forty hostile ones (tools/golden/checkpoint.py).
TEST_CASE(".pt: every golden checkpoint loads or is refused as its index says") {
  const auto index_path = golden("checkpoint/index.json");
  REQUIRE(std::filesystem::exists(index_path));
  const auto index = nlohmann::json::parse(read_file(index_path));
  CHECK(index.size() > 20);
  for (const auto& [name, note] : index.items()) {
    CAPTURE(name);
    const auto path = golden("checkpoint/" + name);
    if (!note["ok"].get<bool>()) {
      const Error error = error_of([&] { read_torch_pt(path); });
      CHECK_MESSAGE(error.code() == ErrorCode::kData, error.what());
      CHECK_FALSE(error.hint().empty());
      continue;
    }
    const TorchFile file = read_torch_pt(path);
    auto expected = path;
    expected.replace_extension(".safetensors");
    if (std::filesystem::exists(expected)) check_equal(read_safetensors(expected).tensors, file.tensors, name != "state_dict.pt");
  }
  CHECK_FALSE(std::filesystem::exists("tessera_was_here"));
  const TorchFile running = read_torch_pt(golden("checkpoint/running.pt"));
  CHECK(running.used == "ema");
  CHECK(running.epoch == 3);
  CHECK(running.updates == 17);
  CHECK(running.names == std::map<int64_t, std::string>{{0, "kitten"}, {1, "pup"}});
  CHECK(running.tensors.contains("model.1.m.0.cv2.bn.running_var"));
  CHECK(read_torch_pt(golden("checkpoint/plain.pt")).tensors.at("w").to_vector<float>() == std::vector<float>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("pickle: names that run code are refused wherever they stand") {
  for (const auto& [module, name] :
       std::initializer_list<std::pair<const char*, const char*>>{{"os", "system"},
                                                                  {"posix", "system"},
                                                                  {"subprocess", "Popen"},
                                                                  {"builtins", "eval"},
                                                                  {"__builtin__", "exec"},
                                                                  {"importlib.util", "find_spec"},
                                                                  {"torch.nn", "Module.forward.__globals__"},
                                                                  {"numpy", "core.eval"},
                                                                  {"socket", "socket"}})
    CHECK_MESSAGE(names_code(module, name), module, ".", name);
  for (const auto& [module, name] :
       std::initializer_list<std::pair<const char*, const char*>>{{"torch._utils", "_rebuild_tensor_v2"},
                                                                  {"builtins", "getattr"},
                                                                  {"collections", "OrderedDict"},
                                                                  {"pathlib", "PosixPath"},
                                                                  {"torch.nn.modules.conv", "Conv2d"},
                                                                  {"ultralytics.nn.modules.head", "Segment.forward"}})
    CHECK_FALSE_MESSAGE(names_code(module, name), module, ".", name);
  CHECK(contains(error_text("\x80\x02}X\1\0\0\0acos\nsystem\n0."s), "holds code (os.system)"));
  CHECK(contains(error_text("\x80\x04\x8c\2os\x8c\6system\x93."s), "holds code"));
  CHECK(contains(error_text("(ios\nsystem\n."), "holds code"));
}

TEST_CASE("pickle: values of every protocol") {
  const auto json = [](const std::string& text) { return to_json_text(unpickle(text).root()); };
  CHECK(json("(I1\nI01\nL-5L\nF0.5\nVab\nNt.") == R"([1,true,-5,0.5,"ab",null])");  // protocol 0
  CHECK(json("\x80\x02(K\xffM\0\1J\xff\xff\xff\xff\x8a\2\0\x80G?\xe0\0\0\0\0\0\0\x88\x89l."s) ==
        "[255,256,-1,-32768,0.5,true,false]");
  CHECK(json("}(\x8c\1aK\1K\2]K\3au.") == R"({"2":[3],"a":1})");
  CHECK(json("\x8f(K\1K\2\x90.") == "[1,2]");
  CHECK(json("\x95\0\0\0\0\0\0\0\0]."s) == "[]");
  CHECK(json("cm\nC\n)\x81}\x8c\1xK\1sb.") == "\"<m.C>\"");
  CHECK(unpickle("cm\nC\n)\x81}\x8c\1xK\1sb.").root().find("x")->integer == 1);
  // A list that holds itself.
  CHECK(contains(json("]q\0h\0a."s), "..."));
}

TEST_CASE("pickle: the stride of an axis of one element may be anything") {
  TorchArchive archive{"model.pt", {}, {}};
  std::vector<float> values = {0, 1, 2, 3, 4, 5};
  archive.storages["0"] = {std::shared_ptr<std::byte>(reinterpret_cast<std::byte*>(values.data()), [](std::byte*) {}), values.size() * sizeof(float)};
  archive.pickle = "}Vw\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI6\ntQI0\n(I2\nI1\nI2\nt(I1\nI9223372036854775807\nI2\nttRs.";
  const Tensor w = decode_torch(archive).tensors.at("w");
  CHECK(w.shape() == Shape{2, 1, 2});
  CHECK(w.to_vector<float>() == std::vector<float>{0, 2, 1, 3});
}

TEST_CASE("pickle: broken programs are errors") {
  for (const char* text : {"",
                           "K",
                           "X\xff\xff\xff\x7f.",
                           ".",
                           "0.",
                           "t.",
                           "h\5.",
                           "a.",
                           "K\1K\2a.",
                           "K\1K\2K\3s.",
                           "R.",
                           "K\1K\2R.",
                           "b.",
                           "Q.",
                           "K\1Q.",
                           "\xff.",
                           "Iabc\n.",
                           "I1",
                           "\x80\x09.",
                           "cos",
                           "(K\1K\2K\3d.",
                           "o.",
                           "(o."}) {
    CAPTURE(text);
    CHECK(contains(error_text(text), "damaged pickle"));
  }
  CHECK(contains(error_text("N."), "no weights"));
  CHECK(contains(error_text("}."), "no weights"));
  // Deep nesting costs no stack.
  CHECK(contains(error_text(std::string(900'000, ']') + std::string(899'999, 'a') + "."), "no weights"));
  CHECK(contains(error_text(std::string(1'100'000, 'N')), "values"));
  CHECK(to_json_text(unpickle(std::string(100, ']') + std::string(99, 'a') + ".").root()).size() < 200);
}

TEST_CASE(".pt: random damage of the pickle never crashes") {
  std::mt19937 random(11);
  for (const char* name : {"pt/checkpoint.pt", "pt/stripped.pt", "pt/state_dict.pt"}) {
    TorchArchive archive = read_torch_archive(golden(name));
    const std::string good = archive.pickle;
    int loaded = 0, refused = 0;
    for (int round = 0; round < 1000; ++round) {
      archive.pickle = good;
      for (unsigned flips = 1 + random() % 3; flips > 0; --flips) archive.pickle[random() % good.size()] = char(random());
      if (round % 10 == 0) archive.pickle.resize(random() % good.size());
      try {
        const TorchFile file = decode_torch(archive, {.to_f32 = true});
        double sum = 0;
        for (const auto& entry : file.tensors)
          if (entry.tensor.dtype() == DType::kF32)
            for (float x : entry.tensor.to_vector<float>()) sum += x;
        ++loaded;
      } catch (const Error& e) {
        CHECK_MESSAGE(e.code() == ErrorCode::kData, e.what());
        ++refused;
      }
    }
    CHECK(loaded > 10);
    CHECK(refused > 300);
  }
}

TEST_CASE(".pt: random damage of the archive never crashes") {
  const TempFolder folder;
  const std::string good = read_file(golden("pt/state_dict.pt"));
  std::mt19937 random(12);
  for (int round = 0; round < 1000; ++round) {
    std::string bytes = good;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips) bytes[random() % bytes.size()] = char(random());
    std::filesystem::remove(folder / "x.pt");  // truncating would flush to the disk
    std::ofstream(folder / "x.pt", std::ios::binary) << bytes;
    try {
      read_torch_pt(folder / "x.pt");
    } catch (const Error& e) {
      CHECK_MESSAGE(e.code() == ErrorCode::kData, e.what());
    }
  }
}
