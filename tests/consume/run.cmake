# SPDX-License-Identifier: MIT
# cmake -DWAY=... -DSOURCE_DIR=... -DBINARY_DIR=... (and more, see tests/CMakeLists.txt) -P run.cmake
#
# Builds and runs the project in this folder with posenc taken up in one way; or, the way that is called examples, one
# of the examples as a project of its own, with an installed posenc. What is installed goes to a folder that is moved
# afterwards: nothing in a package may say where it was installed.

cmake_minimum_required(VERSION 3.24)

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE failed)
  if(failed)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "Failed (${failed}): ${command}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK_DIR})
set(prefix ${WORK_DIR}/moved)
if(WAY MATCHES "^(find_package|pkg_config|examples)$")
  run(${CMAKE_COMMAND} --install ${BINARY_DIR} --prefix ${WORK_DIR}/installed)
  file(RENAME ${WORK_DIR}/installed ${prefix})
endif()

if(WAY STREQUAL "include_dir")
  file(MAKE_DIRECTORY ${WORK_DIR})
  list(TRANSFORM INCLUDES PREPEND -I)
  run(${COMPILER} -std=c++20 ${INCLUDES} ${CMAKE_CURRENT_LIST_DIR}/main.cpp -o ${WORK_DIR}/consumer)
  run(${WORK_DIR}/consumer ${VERSION})
  return()
endif()

set(project ${CMAKE_CURRENT_LIST_DIR})
set(program consumer)
if(WAY STREQUAL "examples")
  set(project ${SOURCE_DIR}/examples)
  set(program 02_rotary_attention)
endif()
set(ENV{PKG_CONFIG_PATH} "${prefix}/share/pkgconfig:$ENV{PKG_CONFIG_PATH}")
run(${CMAKE_COMMAND} -S ${project} -B ${WORK_DIR}/build -G ${GENERATOR}
  -DCMAKE_CXX_COMPILER=${COMPILER} -DWAY=${WAY} -DVERSION=${VERSION} -DSOURCE_DIR=${SOURCE_DIR}
  -DCMAKE_PREFIX_PATH=${prefix} -DFETCHCONTENT_SOURCE_DIR_POSENC=${SOURCE_DIR} -DEigen3_DIR=${Eigen3_DIR}
  -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF --no-warn-unused-cli)
if(WAY STREQUAL "examples")
  run(${CMAKE_COMMAND} --build ${WORK_DIR}/build --target example_${program})
else()
  run(${CMAKE_COMMAND} --build ${WORK_DIR}/build)
endif()
run(${CMAKE_CTEST_COMMAND} --test-dir ${WORK_DIR}/build --output-on-failure --no-tests=error -R ${program})
