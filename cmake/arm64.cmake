# SPDX-License-Identifier: MIT
# Cross build for 64-bit ARM Linux: Debian's gcc-aarch64-linux-gnu, libraries of the folder that tools/arm64-sysroot fills,
# programs run by qemu-user. Used by the preset arm64.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
# gcc 12 for ARM warns of overflows in inlined code that cannot happen; those that can are looked for by the other builds.
set(CMAKE_C_FLAGS_INIT "-Wno-stringop-overflow -Wno-array-bounds")
set(HEARTH_SYSROOT "${CMAKE_CURRENT_LIST_DIR}/../build-arm64/sysroot" CACHE PATH "Filled by tools/arm64-sysroot")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES HEARTH_SYSROOT)
cmake_path(NORMAL_PATH HEARTH_SYSROOT)
set(CMAKE_SYSROOT ${HEARTH_SYSROOT})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${CMAKE_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${CMAKE_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${CMAKE_SYSROOT}/usr/share/pkgconfig)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L ${CMAKE_SYSROOT} CACHE STRING "Runs the programs built")
