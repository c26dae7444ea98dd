# SPDX-License-Identifier: MIT
# cmake -DCOMPILER=... -DINCLUDES=... -DREADME=README.md -DWORK_DIR=... -P readme_test.cmake
#
# Compiles the C++ of a Markdown file from the file itself. A block between ```cpp and ``` is one of three kinds:
#
#   program        has "int main": compiled, linked and run; it must return 0.
#   header         has "#include" and no main: compiled alone, with an empty main. Blocks of the third kind see it.
#   continuation   has neither: statements that go on at the end of the first program's main, after the continuations
#                  before it, in a scope of their own. All of them together are one more program.
#
# Messages of the compiler give the line of the Markdown file. A file without a program fails.

cmake_minimum_required(VERSION 3.24)

list(TRANSFORM INCLUDES PREPEND -I)
file(REMOVE_RECURSE ${WORK_DIR})
file(MAKE_DIRECTORY ${WORK_DIR})
if(NOT EXISTS ${README})
  message(FATAL_ERROR "There is no ${README}")
endif()

function(compile_and_run name code)
  file(WRITE ${WORK_DIR}/${name}.cpp "${code}")
  message(STATUS "${name}")
  execute_process(COMMAND ${COMPILER} -std=c++20 -O1 ${INCLUDES} ${WORK_DIR}/${name}.cpp -o ${WORK_DIR}/${name}
    RESULT_VARIABLE failed)
  if(NOT failed)
    execute_process(COMMAND ${WORK_DIR}/${name} RESULT_VARIABLE failed)
  endif()
  if(failed)
    message(FATAL_ERROR "${name} of ${README} does not compile or does not return 0 (${WORK_DIR}/${name}.cpp)")
  endif()
endfunction()

# No CMake lists here: code is full of semicolons and brackets, which split and join their entries.
file(READ ${README} rest)
string(PREPEND rest "\n")
set(line 0)  # of the first character of rest
set(blocks 0)
set(first_program "")
set(headers "")
set(continuations "")
set(closing "")
while(TRUE)
  string(FIND "${rest}" "\n```cpp\n" begin)
  if(begin EQUAL -1)
    break()
  endif()
  math(EXPR begin "${begin} + 8")
  string(SUBSTRING "${rest}" 0 ${begin} before)
  string(SUBSTRING "${rest}" ${begin} -1 rest)
  string(FIND "${rest}" "\n```\n" end)
  if(end EQUAL -1)
    message(FATAL_ERROR "A block of ${README} has no end")
  endif()
  math(EXPR end "${end} + 1")
  string(SUBSTRING "${rest}" 0 ${end} code)
  string(SUBSTRING "${rest}" ${end} -1 rest)

  string(REGEX REPLACE "[^\n]" "" before "${before}")
  string(LENGTH "${before}" lines)
  math(EXPR line "${line} + ${lines}")
  math(EXPR blocks "${blocks} + 1")
  set(placed "#line ${line} \"${README}\"\n${code}")
  if(code MATCHES "int main\\(")
    compile_and_run("program_at_line_${line}" "${placed}")
    if(first_program STREQUAL "")
      set(first_program "${placed}")
    endif()
  elseif(code MATCHES "#include")
    compile_and_run("header_at_line_${line}" "${placed}\nint main() {}\n")
    string(APPEND headers "${placed}")
  else()
    string(APPEND continuations "{\n${placed}")
    string(APPEND closing "}")
  endif()
  string(REGEX REPLACE "[^\n]" "" code "${code}")
  string(LENGTH "${code}" lines)
  math(EXPR line "${line} + ${lines}")
endwhile()

if(first_program STREQUAL "")
  message(FATAL_ERROR "${README} has ${blocks} blocks of C++ and no program among them")
endif()
if(NOT continuations STREQUAL "")
  string(FIND "${first_program}" "}" end REVERSE)
  string(SUBSTRING "${first_program}" 0 ${end} first_program)
  compile_and_run(continuations
    "#include <posenc/posenc.hpp>\n${headers}${first_program}${continuations}${closing}\n}\n")
endif()
message(STATUS "${blocks} blocks of C++ in ${README}")
