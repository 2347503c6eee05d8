#!/usr/bin/env bash
# All pairs of a cohort, from NIfTI files to a report.
#
#   workflows/all_pairs.sh SOURCE FOLDER [options of `cohort ingest`]
#
# SOURCE holds images/ and, if there are any, labels/ with the same file names. Everything that is
# made goes into FOLDER. Stop it at any time; the same command goes on where it was.
set -euo pipefail

source=$1 folder=$2
shift 2
workers=${WORKERS:-$(nproc)}

mkdir -p "$folder"
# exit code 1 says that some subjects or pairs failed; the others are worth going on for
cohort ingest "$source" "$folder/cohort.zarr" --workers "$workers" "$@" || [ $? -eq 1 ]
cohort register "$folder/cohort.zarr" "$folder/run" --workers "$workers" || [ $? -eq 1 ]
cohort report "$folder/run"
