// Names out of files may hold line ends, zeros and commands to a terminal; what is shown of them is one line of text.
#pragma once

#include <string>

namespace tessera {

std::string one_line(std::string text);  // with a question mark for each control character

}  // namespace tessera
