// Work of a device that is recorded once and then started as a whole: the hundreds of launches of a training step become one.
#pragma once

#include <functional>
#include <memory>

namespace tessera {

class Recording {
 public:
  virtual ~Recording() = default;
  // Starts the work on the current stream, as if the calls were made again with the addresses that they had. Error: it did not
  // start.
  virtual void replay() = 0;
};

class Recorder {
 public:
  virtual ~Recorder() = default;
  // Runs `work`, whose calls of the backend on this thread are noted instead of made; what it does on the host happens. Memory that
  // it allocates belongs to the recorder, is used again by whatever it records later, and must not be read or held beyond it. Error
  // with the reason when something in it cannot be noted (a wait, a transfer, no memory left): nothing was done on the device, and
  // the recorder is good for nothing more.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& work) = 0;
};

}  // namespace tessera
