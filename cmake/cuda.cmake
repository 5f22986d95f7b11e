# The CUDA backend: compiled where there is an nvcc, else cuda/no_cuda.cpp stands in. Nothing of a GPU is needed to build.

set(TESSERA_HAS_CUDA OFF)
if(NOT TESSERA_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TESSERA_CUDA is '${TESSERA_CUDA}', expected AUTO, ON or OFF")
endif()
if(TESSERA_SANITIZE AND TESSERA_CUDA STREQUAL "AUTO")
  message(STATUS "CUDA: left out, sanitizers do not follow into nvcc")
elseif(NOT TESSERA_CUDA STREQUAL "OFF")
  find_program(TESSERA_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)
  if(TESSERA_NVCC)
    set(TESSERA_HAS_CUDA ON)
  elseif(TESSERA_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TESSERA_CUDA is ON, but nvcc was not found on PATH, in CUDA_HOME or in /usr/local/cuda. Install the CUDA toolkit (12 or newer), or configure with -DTESSERA_CUDA=OFF.")
  else()
    message(STATUS "CUDA: no nvcc, the backend is left out")
  endif()
endif()

if(TESSERA_HAS_CUDA)
  set(CMAKE_CUDA_COMPILER ${TESSERA_NVCC})
  # Machine code for the two generations that matter, and PTX for what comes after.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90 CACHE STRING "GPU architectures")
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  enable_language(CUDA)
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake below 3.26 does not know that nvcc does
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  # What the host compiler searches anyway (/usr/include of fmt) must not come first by -isystem.
  list(APPEND CMAKE_CUDA_IMPLICIT_INCLUDE_DIRECTORIES ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})
  find_package(CUDAToolkit REQUIRED)
  message(STATUS "CUDA: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
endif()

function(tessera_cuda_library)
  if(NOT TESSERA_HAS_CUDA)
    add_library(tessera_cuda STATIC ${CMAKE_SOURCE_DIR}/cuda/no_cuda.cpp)
    target_include_directories(tessera_cuda PUBLIC ${CMAKE_SOURCE_DIR})
    target_link_libraries(tessera_cuda PUBLIC tessera_tensor PRIVATE tessera_warnings)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cuda/*.cpp ${CMAKE_SOURCE_DIR}/cuda/*.cu)
  list(REMOVE_ITEM sources ${CMAKE_SOURCE_DIR}/cuda/no_cuda.cpp)
  add_library(tessera_cuda STATIC ${sources})
  target_include_directories(tessera_cuda PUBLIC ${CMAKE_SOURCE_DIR})
  # Warnings are errors; constexpr functions of the standard library may be called in kernels. FMT_USE_CONSTEXPR: fmt takes nvcc for a compiler without constexpr functions and then contradicts itself.
  # -v and -no-compress are for tests/cuda_resources: it reads registers and spills in what ptxas says, launch bounds in the PTX.
  set_target_properties(tessera_cuda PROPERTIES CUDA_COMPILER_LAUNCHER "${CMAKE_SOURCE_DIR}/cmake/keep_ptxas.sh;${CMAKE_CUDA_COMPILER_LAUNCHER}")
  target_compile_options(tessera_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v -no-compress --expt-relaxed-constexpr -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Werror -DFMT_USE_CONSTEXPR=1>)
  # The static runtime finds the driver when it is first used, so the program also starts on machines without one.
  target_link_libraries(tessera_cuda PUBLIC tessera_tensor PRIVATE CUDA::cudart_static tessera_warnings)
endfunction()
