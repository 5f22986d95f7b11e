#include "tensor/base/scope.h"

namespace tessera {

namespace {
thread_local WorkScope scope;
}

WorkScope current_scope() { return scope; }
ScopeGuard::ScopeGuard(WorkScope next) : previous_(scope) { scope = next; }
ScopeGuard::~ScopeGuard() { scope = previous_; }

}  // namespace tessera
