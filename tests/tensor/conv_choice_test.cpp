#include "tensor/conv_choice.h"

#include <doctest/doctest.h>

#include "tensor/base/check.h"
#include "tensor/base/scope.h"

namespace tessera::testing {
namespace {

TEST_CASE("--conv: one for all and patterns for layers") {
  set_conv_choice("own,model.0=cudnn,model.2.*=naive");
  CHECK(conv_choice() == ConvChoice::kOwn);
  REQUIRE(conv_patterns().size() == 2);
  CHECK(conv_patterns()[0].names("model.0"));
  CHECK(!conv_patterns()[0].names("model.01"));
  CHECK(conv_patterns()[1].names("model.2.m.0.cv1"));
  CHECK(!conv_patterns()[1].names("model.22.cv1"));
  CHECK(conv_chosen_anywhere(ConvChoice::kCudnn));
  set_conv_choice("direct");
  CHECK(conv_choice() == ConvChoice::kDirect);
  set_conv_choice("naive");
  CHECK(conv_choice() == ConvChoice::kNaive);
  CHECK(name_of(conv_choice()) == "naive");
  CHECK(conv_patterns().empty());
  CHECK(!conv_chosen_anywhere(ConvChoice::kCudnn));
  for (const char* wrong : {"", "fast", "own,", "=own", "model.0=", "model.0=fast", "own;naive", "tiled"}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(set_conv_choice(wrong), Error);
  }
  CHECK(conv_choice() == ConvChoice::kNaive);  // a wrong one changes nothing
  set_conv_choice("auto");
}

TEST_CASE("--conv: a layer's choice counts where its work runs") {
  const int layer = 0, other = 0;
  CHECK(conv_choice_here() == ConvChoice::kAuto);
  set_conv_choice_of(&layer, ConvChoice::kNaive);
  {
    const ScopeGuard forward(&layer);
    CHECK(conv_choice_here() == ConvChoice::kNaive);
    const ScopeGuard inner(&other);
    CHECK(conv_choice_here() == ConvChoice::kAuto);
  }
  const ScopeGuard backward(WorkScope{&layer, true});
  CHECK(conv_choice_here() == ConvChoice::kNaive);
  set_conv_choice_of(&layer, ConvChoice::kAuto);
  CHECK(conv_choice_here() == ConvChoice::kAuto);
}

}  // namespace
}  // namespace tessera::testing
