# SPDX-License-Identifier: MIT
# What `cmake --install` puts where: libraries, the two headers, pkg-config and CMake package files, the model that ships.
include(CMakePackageConfigHelpers)

install(TARGETS hearth_static hearth_shared EXPORT hearth-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${CMAKE_SOURCE_DIR}/engine/hearth.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# Headers lie side by side there.
file(READ ${CMAKE_SOURCE_DIR}/offline_profiler/hearth_profiler.h header)
string(REPLACE "#include \"engine/hearth.h\"" "#include \"hearth.h\"" header "${header}")
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/include/hearth_profiler.h CONTENT "${header}" @ONLY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/offline_profiler/hearth_profiler.h)
install(FILES ${CMAKE_BINARY_DIR}/include/hearth_profiler.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/hearth/models
  FILES_MATCHING PATTERN "*.gguf")
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/hearth)

install(EXPORT hearth-targets NAMESPACE hearth:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/hearth)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/hearth-config.cmake.in ${CMAKE_BINARY_DIR}/cmake/hearth-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/hearth)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/cmake/hearth-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/cmake/hearth-config.cmake ${CMAKE_BINARY_DIR}/cmake/hearth-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/hearth)

# The prefix is known at install time only (cmake --install --prefix P), so the pkg-config file is written then.
install(CODE "
  set(PROJECT_VERSION \"${PROJECT_VERSION}\")
  set(CMAKE_INSTALL_LIBDIR \"${CMAKE_INSTALL_LIBDIR}\")
  set(CMAKE_INSTALL_INCLUDEDIR \"${CMAKE_INSTALL_INCLUDEDIR}\")
  get_filename_component(CMAKE_INSTALL_PREFIX \"\${CMAKE_INSTALL_PREFIX}\" ABSOLUTE)
  configure_file(\"${CMAKE_SOURCE_DIR}/cmake/hearth.pc.in\" \"${CMAKE_BINARY_DIR}/cmake/hearth.pc\" @ONLY)")
install(FILES ${CMAKE_BINARY_DIR}/cmake/hearth.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
