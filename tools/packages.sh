# SPDX-License-Identifier: MIT
#
# Sourced by the scripts beside it: what the build and the tests need from Debian, and need_packages, which installs what is
# missing of it.
# shellcheck shell=bash disable=SC2034

# PACKAGE:WHAT-IT-BRINGS:WHY
build_packages=(
    "gcc:gcc:the C compiler"
    "libc6-dev:stdio.h:the C library's headers"
    "make:make:runs the build"
    "cmake:cmake:describes the build"
    "pkg-config:pkg-config:finds the libraries below"
    "libhwloc-dev:hwloc.h:cores and caches of this machine"
    "libpcre2-dev:pcre2.h:the patterns that split text for tokenizers"
    "libutf8proc-dev:utf8proc.h:Unicode properties for the same"
    "libcjson-dev:cjson/cJSON.h:JSON output of the command"
    "libedit-dev:histedit.h:line editing in hearth chat"
)
# What the GPU plug-in for OpenCL is built with; it is left out where that is missing. CUDA's nvcc comes from NVIDIA.
gpu_packages=(
    "opencl-headers:CL/cl.h:the OpenCL plug-in"
)
test_packages=(
    "libcriterion-dev:criterion/criterion.h:the test framework"
    "glpk-utils:glpsol:the optimum that the plan solver is compared with (a program of its own, linked to nothing)"
    "${gpu_packages[@]}"
    "pocl-opencl-icd:/etc/OpenCL/vendors/pocl.icd:OpenCL on the processor, for the tests of the GPU kernels"
)
# For tools/run-tests --arm; the arm64 libraries themselves are fetched by tools/arm64-sysroot.
arm_packages=(
    "gcc-aarch64-linux-gnu:aarch64-linux-gnu-gcc:the cross compiler for 64-bit ARM"
    "qemu-user:qemu-aarch64:runs what it compiles"
)

say() {
    printf '==> %s\n' "$*" >&2
}

# Whether what a package brings is there: a command, a header, or a file by its full path.
present() {
    case $1 in
    /*) [ -e "$1" ] ;;
    *.h) local dir
        for dir in /usr/include /usr/local/include /usr/include/*-linux-gnu; do
            [ -e "$dir/$1" ] && return 0
        done
        return 1 ;;
    *) command -v "$1" > /dev/null 2>&1 ;;
    esac
}

# need_packages PACKAGE:WHAT-IT-BRINGS:WHY ...
need_packages() {
    local entry package rest missing=() sudo=()
    for entry in "$@"; do
        package=${entry%%:*}
        rest=${entry#*:}
        present "${rest%%:*}" || missing+=("$entry")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "missing on this machine:"
    for entry in "${missing[@]}"; do
        rest=${entry#*:}
        printf '      %-18s %s\n' "${entry%%:*}" "${rest#*:}" >&2
    done
    if ! command -v apt-get > /dev/null 2>&1; then
        say "there is no apt-get here: install the same with this system's package manager, then run this again"
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo > /dev/null 2>&1; then
            say "run as root, or install sudo: the packages above are needed"
            return 1
        fi
        sudo=(sudo)
    fi
    say "installing with: ${sudo[*]} apt-get install ${missing[*]%%:*}"
    # Package lists of a fresh machine are empty, or out of date: fetch them where the first try fails.
    if ls /var/lib/apt/lists/*Packages* > /dev/null 2>&1; then
        install_packages "${missing[@]%%:*}" && return 0
    fi
    "${sudo[@]}" apt-get update -q >&2
    install_packages "${missing[@]%%:*}"
}

install_packages() {
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2
}
