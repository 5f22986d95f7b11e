// What predict takes as a source and what it leaves in its folder.
#include "tests/cli/workshop.h"

using namespace tessera::test;

namespace {

Arguments predict(const Arguments& more) {
  Arguments all = {"predict", "--model", Workshop::trained(), "--imgsz", "32", "--conf", "0", "--max-det", "3"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

// The images that a source meant, in order.
std::vector<std::string> images_of(const Workshop& w, const Arguments& source) {
  Arguments all = predict({"--save", "false", "--json", "--source"});
  all.insert(all.end(), source.begin(), source.end());
  const Outcome outcome = run(all, w.here());
  INFO(described(all, outcome));
  CHECK(outcome.code == 0);
  std::vector<std::string> images;
  const Json j = outcome.json();
  REQUIRE(j.is_object());
  for (const Json& r : j["results"]) images.push_back(r["image"]);
  return images;
}

}  // namespace

TEST_CASE("cli: predict takes images, folders, patterns, lists, and several of them") {
  const Workshop w;
  const std::string image = image_png(48, 40);
  for (const char* name :
       {"p/a.png", "p/b.png", "p/in/c.png", "p/in/deep/d.png", "p/[x]/e.png", "p/.hidden/f.png", "one, two.png"}) {
    w.write(name, image);
  }
  w.write("p/notes.txt.bak", "no image");
  using Names = std::vector<std::string>;
  CHECK(images_of(w, {"p"}) == Names{"p/a.png", "p/b.png"});
  CHECK(images_of(w, {"p/*"}) == Names{"p/a.png", "p/b.png"});
  CHECK(images_of(w, {"p/**/*.png"}) == Names{"p/[x]/e.png", "p/a.png", "p/b.png", "p/in/c.png", "p/in/deep/d.png"});
  CHECK(images_of(w, {"p/**"}) == images_of(w, {"p/**/*.png"}));
  CHECK(images_of(w, {"p/**/deep/*.png"}) == Names{"p/in/deep/d.png"});
  CHECK(images_of(w, {"**/d.png"}) == Names{"p/in/deep/d.png"});
  CHECK(images_of(w, {"p/b.png,p/a.png"}) == Names{"p/b.png", "p/a.png"});
  CHECK(images_of(w, {"p/b.png", "p/a.png", "p"}) == Names{"p/b.png", "p/a.png"});  // as a shell expands a pattern
  CHECK(images_of(w, {"one, two.png"}) == Names{"one, two.png"});
  // Beside others it is that file too, and others are not taken for it.
  CHECK(images_of(w, {"p/a.png", "one, two.png", "p/b.png,p/in/c.png"}) == Names{"p/a.png", "one, two.png", "p/b.png", "p/in/c.png"});
  CHECK(images_of(w, {"\"one, two.png\",p/a.png"}) == Names{"one, two.png", "p/a.png"});
  w.write("one.png,two.png", image), w.write("one.png", image), w.write("two.png", image);
  CHECK(images_of(w, {"one.png", "two.png"}) == Names{"one.png", "two.png"});
  CHECK(images_of(w, {"one.png,two.png"}) == Names{"one.png,two.png"});
  // Lines of a list are sought from here, then beside it; its order stays.
  w.write("p/list.txt", "b.png\r\n\n./in/c.png  \np/a.png\np/in/*.png\n");
  CHECK(images_of(w, {"p/list.txt"}) == Names{"p/b.png", "p/./in/c.png", "p/a.png", "p/in/c.png"});
  w.write("p/marked.txt",
          "\xEF\xBB\xBF"
          "b.png\n\t p/a.png\n");  // of an editor that marks UTF-8
  CHECK(images_of(w, {"p/marked.txt"}) == Names{"p/b.png", "p/a.png"});
  w.write("p/patterns.txt", "in/*.png\nin/**/d.png\np/b.png\n");
  CHECK(images_of(w, {"p/patterns.txt"}) == Names{"p/in/c.png", "p/in/deep/d.png", "p/b.png"});
  w.write("p/[x]/patterns.txt", "e*.png\n");
  CHECK(images_of(w, {"p/[x]/patterns.txt"}) == Names{"p/[x]/e.png"});
  w.write("long.txt", "p/a.png\np/none.png\n");
  refused(predict({"--source", "long.txt"}), 3, {"long.txt:2: p/none.png: no such file or folder"}, w.here());
  w.write("empty.txt", "\n\n");
  refused(predict({"--source", "empty.txt"}), 3, {"empty.txt: no image in this list"}, w.here());
  CHECK(!fs::exists(w / "runs"));
}

TEST_CASE("cli: sources of the original that are none here say what to do") {
  const Workshop w;
  w.write("clip.mp4", "frames");
  w.write("films/a.AVI", "frames");
  w.write("it's.mov", "frames");
  w.write("tree/in/a.png", image_png(48, 40));
  w.write("words/a.md", "text");
  struct Row {
    const char* source;
    int code;
    std::vector<std::string> parts;
  };
  for (const Row& row : std::vector<Row>{
           {"0", 2, {"a camera is no source", "ffmpeg -i /dev/video0 -frames"}},
           {"screen", 2, {"the screen is no source"}},
           {"-", 2, {"standard input"}},
           {"https://host/a.jpg", 2, {"an address is no source", "tessera download https://host/a.jpg)"}},
           {"rtsp://host/1", 2, {"a stream is no source", "ffmpeg -i rtsp://host/1 -frames"}},
           {"clip.mp4", 3, {"clip.mp4: this is a video", "ffmpeg -i clip.mp4 -qscale:v 2 frames/clip_%06d.jpg"}},
           {"it's.mov", 3, {R"(ffmpeg -i 'it'\''s.mov' -qscale:v 2 'frames/it'\''s_%06d.jpg')"}},
           {"films", 3, {"a.AVI: this is a video"}},
           {"tree", 3, {"no image in this folder", "--source 'tree/**'"}},
           {"words/*", 3, {"1 files match, and none is an image"}},
           {"none/**/*.png", 3, {"no file matches"}},
           {",", 2, {"--source is empty"}},
       }) {
    CAPTURE(row.source);
    refused(predict({"--source", row.source}), row.code, row.parts, w.here());
  }
  CHECK(!fs::exists(w / "runs"));
  // Beside images a video is reported by name, and the rest goes on.
  const Outcome mixed = run(predict({"--source", "clip.mp4,tree/in", "--save", "false", "--json"}), w.here());
  CHECK(mixed.code == 3);
  CHECK(mixed.json()["results"].size() == 1);
  CHECK(says(mixed.err, "clip.mp4: this is a video"));
}

TEST_CASE("cli: predict --save-crop, and what is drawn is a choice") {
  const Workshop w;
  const auto drawn = [&](const char* name, const Arguments& more) {
    Arguments all = predict({"--source", "images/val", "--name", name});
    all.insert(all.end(), more.begin(), more.end());
    CHECK(run(all, w.here()).code == 0);
    return content(w / (std::string("runs/segment/") + name + "/v1.png"));
  };
  const std::string plain = drawn("plain", {"--save-crop"});
  size_t crops = 0;
  for (const auto& entry : fs::recursive_directory_iterator(w / "runs/segment/plain/crops")) {
    if (!entry.is_regular_file()) continue;
    ++crops;
    CHECK(entry.path().extension() == ".jpg");
  }
  CHECK(crops >= 2);
  CHECK(crops <= 6);
  const std::string names = drawn("names", {"--show-conf", "false"}), bare = drawn("bare", {"--no-show-labels"}),
                    masks = drawn("masks", {"--show-boxes", "false"}), wide = drawn("wide", {"--line-width", "9"});
  CHECK(!plain.empty());
  for (const std::string* one : {&names, &bare, &masks, &wide}) CHECK(*one != plain);
  CHECK(names != bare);
  CHECK(bare != masks);
  CHECK(masks == drawn("masks2", {"--show-boxes", "false", "--show-labels", "false"}));  // a label belongs to its box
  CHECK(fs::exists(w / "runs/segment/only/crops") == false);
  CHECK(run(predict({"--source", "images/val", "--name", "only", "--save", "false", "--save-crop"}), w.here()).code == 0);
  CHECK(fs::exists(w / "runs/segment/only/crops"));
  CHECK(!fs::exists(w / "runs/segment/only/v1.png"));
}
