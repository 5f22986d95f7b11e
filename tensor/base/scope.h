// Whose work runs on this thread: the layer in its forward pass, or the one whose part of the backward pass it is. Layers say so,
// the autograd nodes remember it, a profile reads it, and so does --conv for single layers. Saying so costs two stores.
#pragma once

namespace tessera {

struct WorkScope {
  const void* owner = nullptr;  // address of a module, a loss, an optimizer: an identity, never followed. Null: nobody said
  bool backward = false;
};

WorkScope current_scope();

class ScopeGuard {
 public:
  explicit ScopeGuard(WorkScope scope);
  explicit ScopeGuard(const void* owner) : ScopeGuard(WorkScope{owner, false}) {}
  ~ScopeGuard();
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  WorkScope previous_;
};

}  // namespace tessera
