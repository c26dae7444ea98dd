# SPDX-License-Identifier: MIT
# cmake -DPROGRAM=... -DEXPECTED=file.txt -P compare.cmake     fails unless the program prints the file
cmake_minimum_required(VERSION 3.24)

execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE printed RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${PROGRAM} failed: ${failed}")
endif()
file(READ ${EXPECTED} expected)
if(NOT "${printed}" STREQUAL "${expected}")
  message(FATAL_ERROR "${PROGRAM} printed\n${printed}\nbut ${EXPECTED} says\n${expected}")
endif()
