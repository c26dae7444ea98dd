# SPDX-License-Identifier: MIT
# The golden runner must fail where it should: a check that cannot fail is worse than none. Each change below is made to
# a copy of one golden file; the runner has to refuse it, and to say why.
#
#   cmake -DRUNNER=<posenc_golden> -DGOLDEN_DIR=<tests/golden> -DWORK_DIR=<scratch folder> -P rejects.cmake

cmake_minimum_required(VERSION 3.24)

set(file rope_interleaved_hf_others)
file(READ ${GOLDEN_DIR}/${file}.json original)

# WORK_DIR holds `content` as the file `name` and nothing else; the runner checks what `name` begins with.
function(run name content)
  file(REMOVE_RECURSE ${WORK_DIR})
  file(WRITE ${WORK_DIR}/${name}.json "${content}")
  execute_process(COMMAND ${CMAKE_COMMAND} -E env POSENC_GOLDEN_DIR=${WORK_DIR} ${RUNNER} ${ARGN}
    OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
  set(output "${output}" PARENT_SCOPE)
  set(status "${status}" PARENT_SCOPE)
endfunction()

# The last run must have failed, with this in its output.
function(must_be_rejected what message)
  string(FIND "${output}" "${message}" at)
  if(status EQUAL 0 OR at EQUAL -1)
    message(FATAL_ERROR "${what}: the runner must fail and say \"${message}\"; its status is ${status}:\n${output}")
  endif()
  message(STATUS "rejected: ${what}")
endfunction()

# The file with one thing changed.
function(reject what regex replacement message)
  string(REGEX REPLACE "${regex}" "${replacement}" changed "${original}")
  if(changed STREQUAL original)
    message(FATAL_ERROR "${what}: ${file}.json does not hold ${regex}")
  endif()
  run(${file} "${changed}" ${file})
  must_be_rejected("${what}" "${message}")
endfunction()

run(${file} "${original}" ${file})
if(NOT status EQUAL 0)
  message(FATAL_ERROR "the runner must accept the file as it is; its status is ${status}:\n${output}")
endif()

set(last_of_q_out "(\"cohere/q_out\"[^]]*][^]]*),[^]]*]")  # the shape, then the data up to the last number
reject("a number that is wrong" "${last_of_q_out}" "\\1,9.5]" "the peer's is 9.5")
reject("an input that is wrong" "(\"cohere/k\"[^]]*][^]]*),[^]]*]" "\\1,9.5]" "off by")
reject("a position that is wrong" "(\"cohere/position_ids\"[^]]*][^]]*),[^]]*]" "\\1,4321]" "off by")
reject("a missing number" "${last_of_q_out}" "\\1]" "its shape is")
reject("a kind of case that nobody knows" "half_negative_angle" "quarter_split"
  "nothing consumes it: layout quarter_split")
reject("a parameter that nobody reads" "\"name\": \"cohere\"" "\"name\": \"cohere\", \"softcap\": 2.0"
  "nothing reads its parameter softcap")
reject("an array that nobody reads" "\"cohere/inv_freq\"" "\"cohere/frequencies\"" "nothing reads its array frequencies")
reject("an array of no case" "\"cohere/inv_freq\"" "\"coherent/inv_freq\"" "belongs to no case")
reject("a missing array" "\"cohere/q_out\"" "\"cohere/q_away\"" "it has no array q_out")
reject("a file that is cut off" "\"cohere/q_out\".*" "" "parse error")
reject("a file without cases" "\"cases\": *\\[.*\\}\\]" "\"cases\": []" "holds no case")

run(rotation_of_tomorrow "${original}")
must_be_rejected("a file that nobody knows" "nothing consumes this file")
must_be_rejected("a file that is missing" "${file}.json is missing")
run(${file} "${original}" sinusoid)
must_be_rejected("a name that no file begins with" "no file's name begins with sinusoid")
