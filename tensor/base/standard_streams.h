// The standard streams as a long run needs them: a log that cannot be written must not end it.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace tessera {

// Called first of all. A stream that was handed over closed (2>&-) would be the number of the next file that is opened, and the log
// would go into a checkpoint. Messages of a closed stderr are lost; writing to a closed stdout stays an error.
void open_standard_streams();

// What stderr does not take (a full disk behind a log file) is lost.
void write_stderr(std::string_view text);

template <class... Arguments>
void print_stderr(fmt::format_string<Arguments...> form, Arguments&&... arguments) {
  write_stderr(fmt::format(form, std::forward<Arguments>(arguments)...));
}

}  // namespace tessera
