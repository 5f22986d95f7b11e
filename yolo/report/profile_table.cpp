#include "yolo/report/profile_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace tessera {

namespace {

// The sum of all rows of `name`; found or begun.
ProfileRow& row_of(std::vector<ProfileRow>& rows, const std::string& layer, const std::string& direction) {
  for (ProfileRow& r : rows) {
    if (r.layer == layer && r.direction == direction) return r;
  }
  rows.push_back({layer, direction, 0, 0, 0, 0});
  return rows.back();
}

void add(ProfileRow& sum, const ProfileRow& r) {
  sum.calls += r.calls;
  sum.ms += r.ms;
  sum.operations += r.operations;
  sum.bytes += r.bytes;
}

double roof_ms(const ProfileRow& r, const Roof& roof) {
  const double arithmetic = roof.gflops > 0 ? r.operations / roof.gflops / 1e6 : 0;
  const double memory = roof.gbytes_per_s > 0 ? r.bytes / roof.gbytes_per_s / 1e6 : 0;
  return std::max(arithmetic, memory);
}

double gflops(const ProfileRow& r) { return r.ms > 0 ? r.operations / r.ms / 1e6 : 0; }
double gbytes_per_s(const ProfileRow& r) { return r.ms > 0 ? r.bytes / r.ms / 1e6 : 0; }

std::string percent(double part) { return part > 0 ? fmt::format("{:.0f}", 100 * part) : "-"; }

// Columns of the table of layers: which directions go into which.
struct Column {
  const char* title;
  std::array<const char*, 2> directions;
};
constexpr std::array kColumns = {Column{"forward", {"forward", ""}}, Column{"data", {"backward data", ""}},
                                 Column{"weights", {"backward weights", ""}}, Column{"norm", {"norm", "norm backward"}}};

std::string layers_table(const Profile& p) {
  std::vector<ProfileRow> sums, cells;
  std::vector<double> roofs;  // of each layer: its rows' roofs one after the other
  for (const ProfileRow& r : p.rows) {
    ProfileRow& sum = row_of(sums, r.layer, "");
    add(sum, r);
    roofs.resize(sums.size());
    roofs[size_t(&sum - sums.data())] += roof_ms(r, p.roof);
    const char* column = "other";
    for (const Column& c : kColumns) {
      if (std::find(c.directions.begin(), c.directions.end(), r.direction) != c.directions.end()) column = c.title;
    }
    add(row_of(cells, r.layer, column), r);
  }
  std::string text = fmt::format("{:<22}{:>8}{:>7}{:>5}", "layer", "ms", "share", "%");
  for (const Column& c : kColumns) text += fmt::format("{:>10}{:>5}", c.title, "%");
  text += fmt::format("{:>9}\n", "other");
  for (size_t i = 0; i < sums.size(); ++i) {
    const ProfileRow& sum = sums[i];
    text += fmt::format("{:<22}{:>8.2f}{:>6.1f}%{:>5}", sum.layer, sum.ms, 100 * sum.ms / p.step_ms,
                        percent(sum.ms > 0 ? roofs[i] / sum.ms : 0));
    for (const Column& c : kColumns) {
      const ProfileRow& cell = row_of(cells, sum.layer, c.title);
      text += cell.ms > 0 ? fmt::format("{:>10.2f}{:>5}", cell.ms, percent(of_roof(cell, p.roof))) : fmt::format("{:>15}", "");
    }
    const double other = row_of(cells, sum.layer, "other").ms;
    text += other > 0 ? fmt::format("{:>9.2f}\n", other) : "\n";
  }
  return text;
}

}  // namespace

double Profile::kernels_ms() const {
  double sum = 0;
  for (const ProfileRow& r : rows) sum += r.ms;
  return sum;
}

double of_roof(const ProfileRow& row, const Roof& roof) { return row.ms > 0 ? roof_ms(row, roof) / row.ms : 0; }

std::vector<ProfileRow> by_direction(const Profile& profile) {
  std::vector<ProfileRow> sums;
  for (const ProfileRow& r : profile.rows) add(row_of(sums, "", r.direction), r);
  constexpr std::array kOrder = {"forward",          "norm",          "pointwise", "loss",    "pointwise backward", "norm backward",
                                 "backward weights", "backward data", "optimizer", "transfer"};
  const auto place = [&](const ProfileRow& r) { return std::find(kOrder.begin(), kOrder.end(), r.direction) - kOrder.begin(); };
  std::stable_sort(sums.begin(), sums.end(), [&](const ProfileRow& a, const ProfileRow& b) { return place(a) < place(b); });
  return sums;
}

std::string format_profile(const Profile& p) {
  std::string text = fmt::format("profile of {} steps after {} that warmed up, {} ({}{})\n", p.steps, p.warm_up, p.device,
                                 p.backend, p.threads > 0 ? fmt::format(", {} threads", p.threads) : std::string());
  text += "roof: ";
  text += p.roof.gflops > 0 ? fmt::format("{:.0f} GFLOP/s of multiply-adds, ", p.roof.gflops) : "arithmetic not measured, ";
  text += p.roof.gbytes_per_s > 0 ? fmt::format("{:.1f} GB/s of a copy; ", p.roof.gbytes_per_s) : "copy not measured; ";
  text += "%: time at the roof over time taken, above 100 where caches serve\n\n";
  text += fmt::format("{:<22}{:>8}{:>7}{:>5}{:>10}{:>10}{:>8}{:>9}{:>8}\n", "", "ms", "share", "%", "GFLOP", "MB", "calls",
                      "GFLOP/s", "GB/s");
  const auto line = [&](const std::string& name, double ms) {
    text += fmt::format("{:<22}{:>8.2f}{:>6.1f}%", name, ms, 100 * ms / p.step_ms);
  };
  for (const ProfileRow& sum : by_direction(p)) {
    double at_roof = 0;  // each layer's own, as they run one after the other
    for (const ProfileRow& r : p.rows) at_roof += r.direction == sum.direction ? roof_ms(r, p.roof) : 0;
    line(sum.direction, sum.ms);
    text += fmt::format("{:>5}{:>10.2f}{:>10.1f}{:>8.0f}{:>9.1f}{:>8.1f}\n", percent(sum.ms > 0 ? at_roof / sum.ms : 0),
                        sum.operations / 1e9, sum.bytes / 1e6, sum.calls, gflops(sum), gbytes_per_s(sum));
  }
  line("loader wait", p.loader_ms);
  text += "\n";
  line("outside of kernels", p.outside_ms());
  text += "\n";
  line("step", p.step_ms);
  return text + "\n\n" + layers_table(p);
}

std::string profile_csv(const Profile& p) {
  std::string text = "layer,direction,calls,ms,gflop,mbytes,gflops,gbytes_per_s,of_roof\n";
  for (const ProfileRow& r : p.rows) {
    text += fmt::format("{},{},{:g},{:.6f},{:.6f},{:.6f},{:.3f},{:.3f},{:.4f}\n", r.layer, r.direction, r.calls, r.ms,
                        r.operations / 1e9, r.bytes / 1e6, gflops(r), gbytes_per_s(r), of_roof(r, p.roof));
  }
  for (const auto& [name, ms] :
       {std::pair{"loader wait", p.loader_ms}, {"outside of kernels", p.outside_ms()}, {"step", p.step_ms}}) {
    text += fmt::format(",{},,{:.6f},,,,,\n", name, ms);
  }
  return text;
}

nlohmann::ordered_json profile_json(const Profile& p) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const ProfileRow& r : p.rows) {
    rows.push_back({{"layer", r.layer},
                    {"direction", r.direction},
                    {"calls", r.calls},
                    {"ms", r.ms},
                    {"gflop", r.operations / 1e9},
                    {"mbytes", r.bytes / 1e6},
                    {"gflops", gflops(r)},
                    {"gbytes_per_s", gbytes_per_s(r)},
                    {"of_roof", of_roof(r, p.roof)}});
  }
  return {{"steps", p.steps},
          {"step_ms", p.step_ms},
          {"kernels_ms", p.kernels_ms()},
          {"loader_wait_ms", p.loader_ms},
          {"outside_of_kernels_ms", p.outside_ms()},
          {"peak_gflops", p.roof.gflops},
          {"copy_gbytes_per_s", p.roof.gbytes_per_s},
          {"rows", rows}};
}

}  // namespace tessera
