// What the program that starts the ranks (mpirun, srun, mpiexec) says in the environment, before MPI itself is asked: how many, and
// (tensor/comm.h) which of them this process is.
#pragma once

namespace tessera {

// Processes of the launch: 0: started by itself; 1 or more: by a launcher, which may not say how many (then 1).
int launched_size();

}  // namespace tessera
