#include "tensor/base/shared_library.h"

#include <dlfcn.h>

namespace tessera {

SharedLibrary::SharedLibrary(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) return;
    if (refusal_.empty()) refusal_ = dlerror();
  }
}

void* SharedLibrary::address(const char* name) {
  void* const found = handle_ != nullptr ? dlsym(handle_, name) : nullptr;
  if (found == nullptr && missing_.empty()) missing_ = name;
  return found;
}

std::string SharedLibrary::trouble() const {
  if (handle_ == nullptr) return refusal_;
  return missing_.empty() ? "" : "it has no function " + missing_;
}

}  // namespace tessera
