// Commands that messages print are to work as they are typed: a word for a shell, quoted where it must be.
#pragma once

#include <string>

namespace tessera {

std::string shell_word(const std::string& text);

}  // namespace tessera
