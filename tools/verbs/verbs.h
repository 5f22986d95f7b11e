// The verbs of the program: each turns its arguments into library calls and prints the result.
#pragma once

#include "tensor/comm.h"
#include "yolo/config.h"
#include "yolo/report/progress.h"

namespace tessera {

// Each returns the exit code of the program (docs/cli.md) or throws Error.
int run_train(const Config& config);
int run_val(const Config& config);
int run_predict(const Config& config);
int run_export(const Config& config);
int run_convert(const Config& config);
int run_lint(const Config& config);
int run_inspect(const Config& config);
int run_bench(const Config& config);
int run_download(const Config& config);
int run_completion(const Config& config);
int run_man(const Config& config);
int run_selftest(const Config& config);
int run_info(const Config& config);

// What every verb does first: threads, device, log style.
LogStyle prepare(const Config& config, Communicator& ranks = single_process());

// "tessera 0.1, on cpu: 2 threads of AMD EPYC ...", for a report. Of a verb with --device.
std::string made_by(const Config& config);

}  // namespace tessera
