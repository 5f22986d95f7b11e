# ONNX files: compiled where protobuf and its compiler are found, else nn/io/no_onnx.cpp stands in. nn/io/onnx.proto is the format's own
# definition; its classes are made in the build folder.

set(TESSERA_ONNX "AUTO" CACHE STRING "reading and writing of ONNX files: AUTO (when protobuf is found), ON or OFF")
set_property(CACHE TESSERA_ONNX PROPERTY STRINGS AUTO ON OFF)
set(TESSERA_HAS_ONNX OFF)
if(NOT TESSERA_ONNX MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TESSERA_ONNX is '${TESSERA_ONNX}', expected AUTO, ON or OFF")
endif()
if(NOT TESSERA_ONNX STREQUAL "OFF")
  find_package(Protobuf CONFIG QUIET)  # from release 22 on, where the library needs others
  if(NOT Protobuf_FOUND)
    find_package(Protobuf QUIET)
  endif()
  if(TARGET protobuf::libprotobuf-lite AND TARGET protobuf::protoc)
    set(TESSERA_HAS_ONNX ON)
    message(STATUS "ONNX: protobuf ${Protobuf_VERSION}")
  elseif(TESSERA_ONNX STREQUAL "ON")
    tessera_missing("protobuf (TESSERA_ONNX is ON)" "libprotobuf-dev protobuf-compiler")
  else()
    message(STATUS "ONNX: protobuf or its compiler was not found, left out")
  endif()
endif()

if(NOT TESSERA_HAS_ONNX)
  list(APPEND tessera_left_out ${CMAKE_SOURCE_DIR}/nn/io/onnx_graph.cpp)
  return()
endif()
list(APPEND tessera_left_out ${CMAKE_SOURCE_DIR}/nn/io/no_onnx.cpp)
set(generated ${CMAKE_BINARY_DIR}/onnx_proto)
file(MAKE_DIRECTORY ${generated})
add_custom_command(OUTPUT ${generated}/onnx.pb.cc ${generated}/onnx.pb.h
  COMMAND protobuf::protoc --cpp_out=${generated} --proto_path=${CMAKE_SOURCE_DIR}/nn/io ${CMAKE_SOURCE_DIR}/nn/io/onnx.proto
  DEPENDS ${CMAKE_SOURCE_DIR}/nn/io/onnx.proto VERBATIM)
add_library(tessera_onnx_proto STATIC ${generated}/onnx.pb.cc ${generated}/onnx.pb.h)  # not ours to warn about
target_include_directories(tessera_onnx_proto SYSTEM PUBLIC $<BUILD_INTERFACE:${generated}>)
target_link_libraries(tessera_onnx_proto PUBLIC protobuf::libprotobuf-lite)
