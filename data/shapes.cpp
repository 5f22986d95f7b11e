#include "data/shapes.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <numbers>
#include <system_error>

#include "tensor/base/check.h"
#include "tensor/base/file.h"
#include "tensor/base/rng.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr std::array<std::string_view, 5> kNames = {"circle", "square", "triangle", "star", "cross"};
constexpr std::string_view kMark = "# Tessera shapes";
constexpr int kOversample = 4;  // sub-pixels a side for smooth edges

using Colour = std::array<float, 3>;

Colour random_colour(Rng& rng) { return {float(rng.uniform(20, 235)), float(rng.uniform(20, 235)), float(rng.uniform(20, 235))}; }

float difference(const Colour& a, const Colour& b) { return std::abs(a[0] - b[0]) + std::abs(a[1] - b[1]) + std::abs(a[2] - b[2]); }

// A smooth pattern: gradient between two colours along a direction, a wave across it.
struct Texture {
  Colour from, to;
  double cos_a, sin_a, wave, frequency, phase, cross_frequency;

  Texture(Rng& rng, Colour a, Colour b, double wave_height) : from(a), to(b) {
    const double angle = rng.uniform(0, 2 * std::numbers::pi);
    cos_a = std::cos(angle), sin_a = std::sin(angle);
    wave = rng.uniform(0, wave_height);
    frequency = rng.uniform(4, 40);
    cross_frequency = rng.uniform() < 0.5 ? 0 : rng.uniform(4, 40);
    phase = rng.uniform(0, 2 * std::numbers::pi);
  }
  // x, y in fractions of the image
  Colour at(double x, double y) const {
    const double u = x * cos_a + y * sin_a, v = y * cos_a - x * sin_a;
    const double t = std::clamp(0.5 + 0.7 * (u - 0.5 * (cos_a + sin_a)), 0.0, 1.0);
    const double w = wave * std::sin(frequency * u + phase) * std::cos(cross_frequency * v);
    Colour c;
    for (size_t i = 0; i < 3; ++i) c[i] = float(from[i] + t * (to[i] - from[i]) + w);
    return c;
  }
};

// Outline of a class around the origin, largest distance from it 1.
Polygon outline(int class_id) {
  const auto on_circle = [](int count, auto radius) {
    Polygon p;
    for (int i = 0; i < count; ++i) {
      const double a = 2 * std::numbers::pi * i / count;
      p.push_back({float(radius(i) * std::cos(a)), float(radius(i) * std::sin(a))});
    }
    return p;
  };
  switch (class_id) {
    case 0: return on_circle(40, [](int) { return 0.9; });
    case 1: return on_circle(4, [](int) { return 1.0; });
    case 2: return on_circle(3, [](int) { return 1.0; });
    case 3: return on_circle(10, [](int i) { return i % 2 == 0 ? 1.0 : 0.42; });
    default: {
      constexpr float a = 0.95f, b = 0.3f;
      return {{a, -b}, {a, b}, {b, b}, {b, a}, {-b, a}, {-b, b}, {-a, b}, {-a, -b}, {-b, -b}, {-b, -a}, {b, -a}, {b, -b}};
    }
  }
}

Polygon place(Polygon p, double x, double y, double radius, double angle, double stretch) {
  const double c = std::cos(angle), s = std::sin(angle);
  for (Point& q : p) {
    const double u = q.x * radius * stretch, v = q.y * radius / stretch;
    q = {float(x + c * u - s * v), float(y + s * u + c * v)};
  }
  return p;
}

// Share of each pixel of the image that the polygon covers, in units of 1 / kOversample^2.
std::vector<uint8_t> coverage(const Polygon& polygon, int size) {
  const int fine = size * kOversample;
  std::vector<uint8_t> plane(size_t(fine) * size_t(fine), 0), out(size_t(size) * size_t(size), 0);
  Polygon scaled = polygon;
  for (Point& p : scaled) p = {p.x * float(fine), p.y * float(fine)};
  const PixelBox box = fill_polygon(scaled, plane.data(), fine, fine);
  for (int y = box.y0; y < box.y1; ++y)
    for (int x = box.x0; x < box.x1; ++x)
      out[size_t(y / kOversample) * size_t(size) + size_t(x / kOversample)] += plane[size_t(y) * size_t(fine) + size_t(x)];
  return out;
}

struct Disc {
  double x, y, radius;
};

// Overlap is welcome as long as enough of both stays visible.
bool fits(const Disc& a, const std::vector<Disc>& placed) {
  return std::all_of(placed.begin(), placed.end(), [&](const Disc& b) {
    return std::hypot(a.x - b.x, a.y - b.y) > 0.8 * std::max(a.radius, b.radius) + 0.35 * std::min(a.radius, b.radius);
  });
}

std::string yaml_text(const fs::path& folder, const ShapesOptions& o) {
  std::string text = fmt::format("{} train={} val={} size={} seed={}\npath: \"{}\"\ntrain: images/train\nval: images/val\nnames:\n",
                                 kMark, o.train, o.val, o.size, o.seed, folder.string());
  for (size_t i = 0; i < kNames.size(); ++i) text += fmt::format("  {}: {}\n", i, kNames[i]);
  return text;
}

// The text of data.yaml, empty when there is none.
std::string present_yaml(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(folder / "data.yaml", ignored) ? read_file(folder / "data.yaml") : std::string();
}

void write_split(const fs::path& folder, const char* split, const ShapesOptions& options, int64_t first, int count) {
  fs::create_directories(folder / "images" / split);
  fs::create_directories(folder / "labels" / split);
  for (int i = 0; i < count; ++i) {
    const ShapesSample sample = draw_shapes(options, first + i);
    const std::vector<uint8_t> jpeg = encode_jpeg(sample.image, 95);
    std::string label;
    for (const ShapesObject& object : sample.objects) {
      label += fmt::format("{}", object.class_id);
      for (const Point& p : object.polygon) label += fmt::format(" {:.6f} {:.6f}", p.x, p.y);
      label += '\n';
    }
    const std::string name = fmt::format("{:05}", i);
    const auto write = [](const fs::path& path, const char* data, size_t size) {
      std::ofstream out(path, std::ios::binary);
      out.write(data, std::streamsize(size));
      out.close();
      if (!out) throw_file_error("write", path, errno);
    };
    write(folder / "images" / split / (name + ".jpg"), reinterpret_cast<const char*>(jpeg.data()), jpeg.size());
    write(folder / "labels" / split / (name + ".txt"), label.data(), label.size());
  }
}

}  // namespace

ShapesSample draw_shapes(const ShapesOptions& options, int64_t index) {
  Rng rng(options.seed, RngPurpose::kShapes, uint64_t(index));
  const int size = options.size;
  const Colour back_a = random_colour(rng), back_b = random_colour(rng);
  const Texture background(rng, back_a, back_b, 25);
  std::vector<float> canvas(size_t(size) * size_t(size) * 3);
  for (int y = 0; y < size; ++y)
    for (int x = 0; x < size; ++x) {
      const Colour c = background.at((x + 0.5) / size, (y + 0.5) / size);
      std::copy(c.begin(), c.end(), canvas.begin() + (int64_t(y) * size + x) * 3);
    }

  ShapesSample sample;
  const int64_t wanted = 1 + rng.below(6);
  std::vector<Disc> placed;
  for (int64_t k = 0; k < wanted; ++k) {
    const double radius = rng.uniform() < 0.12 ? rng.uniform(0.055, 0.08) : rng.uniform(0.10, 0.24);
    Disc disc{};
    bool found = false;
    for (int attempt = 0; attempt < 30 && !found; ++attempt) {
      const double margin = radius * 1.2 + 0.01;  // the stretch below stays inside
      disc = {rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin), radius};
      found = fits(disc, placed);
    }
    if (!found) continue;
    placed.push_back(disc);
    ShapesObject object;
    object.class_id = int32_t(rng.below(int64_t(kNames.size())));
    const double angle = rng.uniform(0, 2 * std::numbers::pi);
    object.polygon = place(outline(object.class_id), disc.x, disc.y, radius, angle, rng.uniform(0.9, 1.1));
    Colour colour = random_colour(rng);
    const Colour behind = background.at(disc.x, disc.y);
    for (int attempt = 0; attempt < 20 && difference(colour, behind) < 130; ++attempt) colour = random_colour(rng);
    Colour shade = colour;
    for (float& v : shade) v += float(rng.uniform(-35, 35));
    const Texture texture(rng, colour, shade, 18);
    const std::vector<uint8_t> cover = coverage(object.polygon, size);
    for (int y = 0; y < size; ++y)
      for (int x = 0; x < size; ++x) {
        const size_t at = size_t(y) * size_t(size) + size_t(x);
        if (cover[at] == 0) continue;
        const float a = float(cover[at]) / float(kOversample * kOversample);
        const Colour c = texture.at((x + 0.5) / size, (y + 0.5) / size);
        for (size_t i = 0; i < 3; ++i) canvas[at * 3 + i] += a * (c[i] - canvas[at * 3 + i]);
      }
    sample.objects.push_back(std::move(object));
  }

  const float noise = float(rng.uniform(2, 14));
  sample.image = Image(size, size);
  for (size_t i = 0; i < canvas.size(); ++i) {
    const float n = noise * (float(rng.uniform() + rng.uniform()) - 1.0f);  // triangular: cheap and smooth enough
    sample.image.pixels[i] = uint8_t(std::clamp(std::lround(canvas[i] + n), 0l, 255l));
  }
  return sample;
}

fs::path make_shapes(const fs::path& wanted_folder, const ShapesOptions& options) {
  if (options.train < 1 || options.val < 1 || options.size < 32 || options.size > 4096)
    throw Error(ErrorCode::kUsage,
                fmt::format("shapes: {} train and {} val images of {} pixels", options.train, options.val, options.size), {},
                "at least one image of each split, 32 to 4096 pixels");
  const fs::path folder = fs::absolute(wanted_folder).lexically_normal();
  const std::string yaml = yaml_text(folder, options);
  const std::string present = present_yaml(folder);
  if (present == yaml) return folder / "data.yaml";
  if (fs::exists(folder) && !fs::is_empty(folder) && !present.starts_with(kMark))
    throw Error(ErrorCode::kUsage, "the folder for the shapes data set holds other files", {folder.string()},
                "name another folder, or empty this one");

  const fs::path scratch = folder.string() + fmt::format(".{}.tmp", getpid()),
                 old = folder.string() + fmt::format(".{}.old", getpid());
  std::error_code ignored;
  try {
    fs::remove_all(scratch);
    write_split(scratch, "train", options, 0, options.train);
    write_split(scratch, "val", options, options.train, options.val);
    write_file_atomic(scratch / "data.yaml", yaml);
    if (fs::exists(folder)) fs::rename(folder, old);
    fs::rename(scratch, folder);
    fs::remove_all(old, ignored);
  } catch (const fs::filesystem_error& e) {
    fs::remove_all(scratch, ignored);
    if (present_yaml(folder) == yaml) return folder / "data.yaml";  // another process was faster
    throw_file_error("write", e.path1().empty() ? folder : e.path1(), e.code().value());
  } catch (...) {
    fs::remove_all(scratch, ignored);
    throw;
  }
  return folder / "data.yaml";
}

}  // namespace tessera
