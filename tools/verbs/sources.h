// What --source of predict means: images, folders, patterns and lists of them, several separated by commas.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace tessera {

// Each file once, in the order of the sources and of a list's lines; those of a folder or a pattern sorted by path. A pattern may
// hold ** for any folders, none included; folders themselves are not searched below. A list (.txt) names a source a line, sought
// from the working folder, then beside the list. A name with a comma stands alone or in double quotes (csv_quoted). Error(kUsage)
// for what is no file at all (cameras, screens, addresses), with what to do instead; Error(kData) when nothing is found, or videos
// alone.
std::vector<std::filesystem::path> source_images(const std::string& sources);

// By its name; a video holds images, but is not one.
bool is_video(const std::filesystem::path& file);
// Error(kData) that says how a video becomes images.
[[noreturn]] void refuse_video(const std::filesystem::path& file);

}  // namespace tessera
