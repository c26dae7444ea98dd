# SPDX-License-Identifier: MIT
# cmake -DCOMPILER=... -DINCLUDES=... -DSOURCE=case.cpp -DPRECOMPILED=header.hpp -P compile_fail.cmake
#
# header.hpp is included first; header.hpp.gch is it, precompiled.
#
# The case must compile as it stands, so that it fails for no other reason than the line under POSENC_SHOULD_FAIL;
# with that line it must not, and the compiler must say what the case's "// expect: " line says (a regular expression).

cmake_minimum_required(VERSION 3.24)

list(TRANSFORM INCLUDES PREPEND -I)
file(STRINGS ${SOURCE} expected REGEX "^// expect: ")
string(REGEX REPLACE "^// expect: " "" expected "${expected}")
if(expected STREQUAL "")
  message(FATAL_ERROR "${SOURCE} has no line '// expect: message'")
endif()

set(compile ${COMPILER} -std=c++20 -fsyntax-only ${INCLUDES} -include ${PRECOMPILED} ${SOURCE})
execute_process(COMMAND ${compile} RESULT_VARIABLE failed ERROR_VARIABLE messages)
if(failed)
  message(FATAL_ERROR "${SOURCE} must compile without POSENC_SHOULD_FAIL:\n${messages}")
endif()
execute_process(COMMAND ${compile} -DPOSENC_SHOULD_FAIL RESULT_VARIABLE failed ERROR_VARIABLE messages)
if(NOT failed)
  message(FATAL_ERROR "${SOURCE} compiles with POSENC_SHOULD_FAIL")
endif()
if(NOT messages MATCHES "${expected}")
  message(FATAL_ERROR "${SOURCE} fails to compile, but not with '${expected}':\n${messages}")
endif()
