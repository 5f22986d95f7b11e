# The verb download: compiled where libcurl and nettle are found, else data/download/no_download.cpp stands in. Of libcurl only the headers
# are needed here: the program opens the library when the verb is used (docs/adr/0013-download.md).

set(TESSERA_DOWNLOAD "AUTO" CACHE STRING "the verb download: AUTO (when libcurl and nettle are found), ON or OFF")
set_property(CACHE TESSERA_DOWNLOAD PROPERTY STRINGS AUTO ON OFF)
set(TESSERA_HAS_DOWNLOAD OFF)
if(NOT TESSERA_DOWNLOAD MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TESSERA_DOWNLOAD is '${TESSERA_DOWNLOAD}', expected AUTO, ON or OFF")
endif()
if(NOT TESSERA_DOWNLOAD STREQUAL "OFF")
  pkg_check_modules(curl QUIET libcurl>=7.66)
  pkg_check_modules(nettle QUIET IMPORTED_TARGET nettle>=3.4)
  if(curl_FOUND AND nettle_FOUND)
    set(TESSERA_HAS_DOWNLOAD ON)
    message(STATUS "download: headers of libcurl ${curl_VERSION}, nettle ${nettle_VERSION}")
  elseif(TESSERA_DOWNLOAD STREQUAL "ON")
    tessera_missing("libcurl 7.66 or nettle 3.4 (TESSERA_DOWNLOAD is ON)" "libcurl4-openssl-dev nettle-dev")
  else()
    message(STATUS "download: libcurl or nettle was not found, left out")
  endif()
endif()

set(folder ${CMAKE_SOURCE_DIR}/data/download)
if(TESSERA_HAS_DOWNLOAD)
  list(APPEND tessera_left_out ${folder}/no_download.cpp)
else()
  list(APPEND tessera_left_out ${folder}/curl_api.cpp ${folder}/fetch.cpp ${folder}/part_file.cpp ${folder}/sha256.cpp ${folder}/transfer.cpp
    ${CMAKE_SOURCE_DIR}/tests/data/fetch_test.cpp)
endif()
