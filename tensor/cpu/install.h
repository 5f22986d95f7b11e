// Registers the CPU backends: the reference one, and the vectorised one where this CPU has AVX2 or better.
#pragma once

namespace tessera {

// Call once at the start of a program. The environment switch TESSERA_CPU_BACKEND chooses what runs: ref (the vectorised backend is
// installed all the same, but does not run), avx2 or avx512; tensor/conv_choice.h which convolutions. Error(kUsage) for a value
// that this CPU cannot run. Without AVX2 a line on stderr says that the program will be slow.
void install_cpu_backends();

}  // namespace tessera
