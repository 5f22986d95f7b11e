// An ONNX graph made ready and run on the CPU: constants computed beforehand, a convolution with the sigmoid and product that follow it
// as one step, every value let go of after its last reader. It knows no YOLO.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "yolo/io/onnx_operators.h"

namespace tessera {

class OnnxProgram {
 public:
  // Error(kData) with the file and the node: an operator, attribute or wiring that is not known or does not fit. `file`: for messages.
  OnnxProgram(OnnxGraph graph, std::string file);
  OnnxProgram(const OnnxProgram&) = delete;  // its steps point into its graph
  OnnxProgram& operator=(const OnnxProgram&) = delete;

  // x: f32, of the sizes of the graph's one input, in any memory order. The outputs by name, in the order of the graph, f32. Error(kData)
  // when sizes do not fit each other.
  std::vector<Tensor> run(const Tensor& x) const;

  const OnnxGraph& graph() const { return graph_; }  // its constants have gone into the program
  const std::string& file() const { return file_; }
  const OnnxValue& input() const { return *input_; }

 private:
  struct Step {
    const OnnxNode* node = nullptr;
    std::vector<int> in, out;   // slots; -1: left out
    std::vector<int> finished;  // slots that nobody reads from here on
    bool convolution = false;
    OnnxConv conv;
  };

  void prepare();
  void join_activations(std::vector<Step>& steps) const;
  void run(const Step& step, std::vector<Tensor>& slots, int64_t most) const;
  int slot_of(const std::string& name) const;  // -1: no such value

  OnnxGraph graph_;
  std::string file_;
  const OnnxValue* input_ = nullptr;
  std::map<std::string, int, std::less<>> slots_;
  std::vector<Tensor> constants_;  // by slot; undefined: made when it runs
  std::vector<Step> steps_;
  std::vector<int> outputs_;
  int input_slot_ = -1;
};

}  // namespace tessera
