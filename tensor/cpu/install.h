// Registers the CPU backends: the reference one, and the vectorised one where this CPU has AVX2 or better.
#pragma once

namespace tessera {

// Call once at the start of a program. TESSERA_CPU_BACKEND=ref makes the reference backend the one that runs.
void install_cpu_backends();

}  // namespace tessera
