// All values of an enumeration of ops, those that name_of() names: an op that is added is in every test that goes over them.
#pragma once

#include <vector>

namespace tessera::testing {

template <class Op>
std::vector<Op> every() {
  std::vector<Op> ops;
  for (int i = 0; name_of(Op(i)) != "?"; ++i) ops.push_back(Op(i));
  return ops;
}

}  // namespace tessera::testing
