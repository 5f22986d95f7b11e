# The program alone as a Debian package, tessera_<version>_<architecture>.deb: cpack -G DEB. What it depends on is read from its libraries.
set(CPACK_PACKAGE_NAME tessera)
set(CPACK_PACKAGE_CONTACT "The Tessera Authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Trains, validates and runs YOLOv8 instance segmentation")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL program)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME tessera)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SUGGESTS "libcurl4 | libcurl4t64")  # opened by the verb download
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
include(CPack)
