#include "autograd/graph_dump.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "autograd/node.h"

namespace tessera {

namespace {

std::vector<Node*> nodes_oldest_first(const Variable& root) {
  std::vector<Node*> found, pending;
  std::unordered_set<Node*> seen;
  auto visit = [&](Node* n) {
    if (n != nullptr && seen.insert(n).second) pending.push_back(n);
  };
  visit(root.node().get());
  while (!pending.empty()) {
    Node* n = pending.back();
    pending.pop_back();
    found.push_back(n);
    for (const Edge& e : n->inputs) visit(e.node.get());
  }
  std::sort(found.begin(), found.end(), [](Node* a, Node* b) { return a->order < b->order; });
  return found;
}

std::string label(const Edge& e, const std::unordered_map<Node*, int>& number) {
  if (e.node) return fmt::format("%{}", number.at(e.node.get()));
  if (e.leaf) return fmt::format("leaf{}", to_string(e.shape));
  return "const";
}

std::unordered_map<Node*, int> numbers_of(const std::vector<Node*>& nodes) {
  std::unordered_map<Node*, int> number;
  for (Node* n : nodes) number.emplace(n, int(number.size()));
  return number;
}

}  // namespace

std::string graph_text(const Variable& root) {
  const auto nodes = nodes_oldest_first(root);
  const auto number = numbers_of(nodes);
  std::string text;
  int64_t total = 0;
  for (Node* n : nodes) {
    text += fmt::format("%{:<5} {:<20} (", number.at(n), n->name());
    for (size_t i = 0; i < n->inputs.size(); ++i) text += (i ? ", " : "") + label(n->inputs[i], number);
    text += fmt::format(")  saves {} bytes\n", n->saved_bytes());
    total += n->saved_bytes();
  }
  return text + fmt::format("{} nodes, {} bytes saved\n", nodes.size(), total);
}

std::string graph_dot(const Variable& root) {
  const auto nodes = nodes_oldest_first(root);
  const auto number = numbers_of(nodes);
  std::string text = "digraph autograd {\n  rankdir=BT;\n  node [shape=box];\n";
  for (Node* n : nodes) {
    text += fmt::format("  n{} [label=\"{}\\n{} bytes\"];\n", number.at(n), n->name(), n->saved_bytes());
    for (const Edge& e : n->inputs) {
      if (e.node) text += fmt::format("  n{} -> n{};\n", number.at(e.node.get()), number.at(n));
    }
  }
  return text + "}\n";
}

int64_t graph_saved_bytes(const Variable& root) {
  int64_t total = 0;
  for (Node* n : nodes_oldest_first(root)) total += n->saved_bytes();
  return total;
}

}  // namespace tessera
