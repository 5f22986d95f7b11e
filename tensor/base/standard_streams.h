// The standard streams as a long run needs them: a log that cannot be written must not end it.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace tessera {

// Called first of all. A stream that was handed over closed (2>&-) would be the number of the next file that is opened, and the log
// would go into a checkpoint. Messages of a closed stderr are lost; writing to a closed stdout stays an error.
void open_standard_streams();

// Called early, too. Whoever reads a stream may go before us: `| head`, or the `tee` of `2>&1 | tee log`, which the Ctrl-C that
// asks for the state to be saved ends at once. Such a stream is one that takes nothing, as below, and not the end of the process.
void outlive_readers();

// What stdout does not take (a full disk behind it) is an Error of kIo. Where its reader has gone the process ends here, without a
// word and by SIGPIPE, as a shell expects of it.
void flush_stdout();
[[noreturn]] void stdout_failed(int error_number);

// What stderr does not take (a full disk behind a log file) is lost.
void write_stderr(std::string_view text);

template <class... Arguments>
void print_stderr(fmt::format_string<Arguments...> form, Arguments&&... arguments) {
  write_stderr(fmt::format(form, std::forward<Arguments>(arguments)...));
}

}  // namespace tessera
