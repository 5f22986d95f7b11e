// A library that few runs want, opened when it is first needed. A program that does not ask for it runs without it, and does not pay for
// it: cuDNN and cuBLASLt alone take 200 MiB and a tenth of a second to load, libcurl brings thirty other libraries.
#pragma once

#include <initializer_list>
#include <string>

namespace tessera {

class SharedLibrary {
 public:
  // Names or paths, tried in order. It stays open to the end of the program.
  explicit SharedLibrary(std::initializer_list<const char*> names);

  // Opened, with every function that was asked for.
  bool complete() const { return handle_ != nullptr && missing_.empty(); }
  std::string trouble() const;  // why it is not, in the system's words

  template <class F>
  F function(const char* name) {
    return reinterpret_cast<F>(address(name));
  }

 private:
  void* address(const char* name);

  void* handle_ = nullptr;
  std::string refusal_, missing_;
};

}  // namespace tessera
