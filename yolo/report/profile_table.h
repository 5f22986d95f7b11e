// What a profile found, and how it is shown: a table for people, profile.csv, JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tessera {

// What the machine reaches when nothing but arithmetic, or nothing but memory, is asked of it; 0: not measured.
struct Roof {
  double gflops = 0;        // multiply-adds count two
  double gbytes_per_s = 0;  // of a copy, read plus written
};

// One kind of work of one layer, mean over the steps.
struct ProfileRow {
  std::string layer;      // "model.2.m.0.cv1", "loss", "optimizer", "input"
  std::string direction;  // "forward", "backward data", "backward weights", "norm", ...
  double calls = 0;
  double ms = 0, operations = 0, bytes = 0;
};

struct Profile {
  int64_t steps = 0, warm_up = 0;
  std::string device, backend;
  int threads = 0;
  double step_ms = 0;    // wall time, everything included
  double loader_ms = 0;  // of it, waiting for the next batch
  Roof roof;
  std::vector<ProfileRow> rows;  // layers in the model's order

  double kernels_ms() const;
  double outside_ms() const { return step_ms - loader_ms - kernels_ms(); }
};

// Time at the roofs (the longer of arithmetic and copy) over the time taken; 0 where no roof is known. Above 1: served from caches.
double of_roof(const ProfileRow& row, const Roof& roof);

// Sums over the layers, in the order of a step.
std::vector<ProfileRow> by_direction(const Profile& profile);

std::string format_profile(const Profile& profile);
std::string profile_csv(const Profile& profile);
nlohmann::ordered_json profile_json(const Profile& profile);

}  // namespace tessera
