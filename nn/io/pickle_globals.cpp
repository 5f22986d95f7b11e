#include "nn/io/pickle_globals.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace tessera {

namespace {

// Whole modules, by the part before the first dot.
constexpr std::string_view kCodeModules[] = {"_ctypes",
                                             "_pickle",
                                             "_posixsubprocess",
                                             "_socket",
                                             "_thread",
                                             "aiohttp",
                                             "asyncio",
                                             "bdb",
                                             "cProfile",
                                             "code",
                                             "codeop",
                                             "commands",
                                             "ctypes",
                                             "dill",
                                             "ftplib",
                                             "http",
                                             "httplib",
                                             "imp",
                                             "importlib",
                                             "joblib",
                                             "marshal",
                                             "mmap",
                                             "multiprocessing",
                                             "nt",
                                             "os",
                                             "pdb",
                                             "pickle",
                                             "pip",
                                             "popen2",
                                             "posix",
                                             "profile",
                                             "pty",
                                             "pydoc",
                                             "requests",
                                             "runpy",
                                             "shelve",
                                             "shutil",
                                             "signal",
                                             "smtplib",
                                             "socket",
                                             "ssl",
                                             "subprocess",
                                             "sys",
                                             "tempfile",
                                             "threading",
                                             "timeit",
                                             "trace",
                                             "urllib",
                                             "urllib2",
                                             "venv",
                                             "webbrowser",
                                             "xmlrpc",
                                             "zipimport"};

// Single names of modules that are harmless otherwise. builtins.getattr is not among them: fused modules hold bound methods, which
// Python pickles as getattr(object, "name").
constexpr std::pair<std::string_view, std::string_view> kCodeNames[] = {{"builtins", "__import__"},
                                                                        {"builtins", "apply"},
                                                                        {"builtins", "breakpoint"},
                                                                        {"builtins", "compile"},
                                                                        {"builtins", "delattr"},
                                                                        {"builtins", "eval"},
                                                                        {"builtins", "exec"},
                                                                        {"builtins", "execfile"},
                                                                        {"builtins", "file"},
                                                                        {"builtins", "globals"},
                                                                        {"builtins", "input"},
                                                                        {"builtins", "locals"},
                                                                        {"builtins", "open"},
                                                                        {"builtins", "raw_input"},
                                                                        {"builtins", "reload"},
                                                                        {"builtins", "setattr"},
                                                                        {"builtins", "vars"},
                                                                        {"io", "open"},
                                                                        {"io", "FileIO"},
                                                                        {"_io", "open"},
                                                                        {"_io", "FileIO"},
                                                                        {"operator", "attrgetter"},
                                                                        {"operator", "methodcaller"},
                                                                        {"types", "CodeType"},
                                                                        {"types", "FunctionType"},
                                                                        {"torch", "load"},
                                                                        {"torch.serialization", "load"},
                                                                        {"torch.hub", "load"},
                                                                        {"numpy", "load"},
                                                                        {"numpy.testing._private.utils", "runstring"}};

// Ways from a harmless object to the interpreter, as parts of an attribute path.
constexpr std::string_view kCodeAttributes[] = {"__globals__", "__builtins__", "__subclasses__", "__code__", "__import__"};

constexpr std::pair<std::string_view, DType> kStorages[] = {
    {"DoubleStorage", DType::kF64}, {"FloatStorage", DType::kF32}, {"HalfStorage", DType::kF16}, {"BFloat16Storage", DType::kBF16},
    {"LongStorage", DType::kI64},   {"IntStorage", DType::kI32},   {"ByteStorage", DType::kU8},  {"BoolStorage", DType::kBool}};

}  // namespace

bool names_code(std::string_view module, std::string_view name) {
  const std::string_view top = module.substr(0, module.find('.'));
  if (std::find(std::begin(kCodeModules), std::end(kCodeModules), top) != std::end(kCodeModules)) return true;
  const std::string_view where = module == "__builtin__" ? "builtins" : module;
  const bool path = name.find('.') != std::string_view::npos;  // protocol 4 allows "object.attribute": every part is judged
  while (true) {
    const std::string_view part = name.substr(0, name.find('.'));
    for (const auto& [m, n] : kCodeNames)
      if (part == n && (path || m == where)) return true;
    if (std::find(std::begin(kCodeAttributes), std::end(kCodeAttributes), part) != std::end(kCodeAttributes)) return true;
    if (part.size() == name.size()) return false;
    name.remove_prefix(part.size() + 1);
  }
}

std::optional<DType> storage_type(std::string_view name) {
  for (const auto& [storage, type] : kStorages)
    if (storage == name) return type;
  return {};
}

}  // namespace tessera
