#!/bin/sh
# Compiler launcher of the .cu files: runs the command it is given and keeps what `ptxas -v` says about the kernels in a file beside
# the object, OBJECT.ptxas, for tests/cuda_resources. Everything else the compiler prints goes on to the terminal.
object=
previous=
for argument in "$@"; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"

said=$object.said
"$@" 2>"$said"
status=$?
verbose='^ptxas info|^    [0-9]+ bytes stack frame'
grep -E "$verbose" "$said" >"$object.ptxas"
grep -vE "$verbose" "$said" >&2
rm -f "$said"
exit $status
