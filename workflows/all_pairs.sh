#!/usr/bin/env bash
# All pairs of a cohort, from NIfTI files to a report.
#
#   workflows/all_pairs.sh SOURCE FOLDER [options of `cohort ingest`]
#
# SOURCE holds images/ and, if there are any, labels/ with the same file names. Everything that is
# made goes into FOLDER. Stop it at any time; the same command goes on where it was.
set -euo pipefail

if [ $# -lt 2 ]; then
	echo "usage: $0 SOURCE FOLDER [options of cohort ingest]" >&2
	exit 2
fi
source=$1 folder=$2
shift 2
workers=${WORKERS:-$(nproc)}

mkdir -p "$folder"
# exit code 1 says that some subjects or pairs failed: the others are worth going on for, and it is
# the code in the end
failed=0
or_some_failed() { [ "$1" -eq 1 ] || exit "$1"; failed=1; }
cohort ingest "$source" "$folder/cohort.zarr" --workers "$workers" "$@" || or_some_failed $?
cohort register "$folder/cohort.zarr" "$folder/run" --workers "$workers" || or_some_failed $?
cohort report "$folder/run"
exit $failed
