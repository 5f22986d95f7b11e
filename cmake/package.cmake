# What `cmake --install` gives other projects (docs/library.md). Three components: program (tools/CMakeLists.txt), library (libtessera.so
# with its header, capi/CMakeLists.txt) and development: the static libraries, their headers and the CMake package.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(TESSERA_HEADERS ${CMAKE_INSTALL_INCLUDEDIR}/tessera)  # a root of their own: no /usr/include/tensor
set(TESSERA_PACKAGE ${CMAKE_INSTALL_LIBDIR}/cmake/Tessera)

# tessera_nn is Tessera::nn outside.
function(tessera_install_library target)
  string(REPLACE tessera_ "" name ${target})
  add_library(Tessera::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<INSTALL_INTERFACE:${TESSERA_HEADERS}>)
  set_property(GLOBAL APPEND PROPERTY TESSERA_INSTALLED ${target})
  install(TARGETS ${target} EXPORT TesseraLibraries ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
endfunction()

function(tessera_install_package)
  if(TESSERA_HAS_ONNX)
    tessera_install_library(tessera_onnx_proto)
  endif()
  install(EXPORT TesseraLibraries NAMESPACE Tessera:: DESTINATION ${TESSERA_PACKAGE} COMPONENT development)

  # Left out is what kernels and readers are made of. That nothing else needs it: tests/package.
  install(DIRECTORY tensor autograd nn data yolo DESTINATION ${TESSERA_HEADERS} COMPONENT development FILES_MATCHING PATTERN "*.h"
    PATTERN ref EXCLUDE PATTERN cpu EXCLUDE PATTERN "*_math.h" EXCLUDE PATTERN "*_functor*.h" EXCLUDE PATTERN curl_api.h EXCLUDE
    PATTERN yaml_keys.h EXCLUDE PATTERN resize_taps.h EXCLUDE)
  install(FILES tensor/cpu/install.h DESTINATION ${TESSERA_HEADERS}/tensor/cpu COMPONENT development)
  install(FILES cuda/install.h DESTINATION ${TESSERA_HEADERS}/cuda COMPONENT development)

  configure_package_config_file(cmake/TesseraConfig.cmake.in ${CMAKE_BINARY_DIR}/package/TesseraConfig.cmake
    INSTALL_DESTINATION ${TESSERA_PACKAGE})
  write_basic_package_version_file(${CMAKE_BINARY_DIR}/package/TesseraConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  foreach(component development library)
    install(FILES ${CMAKE_BINARY_DIR}/package/TesseraConfig.cmake ${CMAKE_BINARY_DIR}/package/TesseraConfigVersion.cmake
      DESTINATION ${TESSERA_PACKAGE} COMPONENT ${component})
  endforeach()
endfunction()
