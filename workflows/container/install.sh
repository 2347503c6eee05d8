#!/bin/sh
# What both images hold. Runs as root, in the folder of the sources, on Debian with Python.
set -eu
# Triton compiles what starts its kernels
apt-get update
apt-get install --yes --no-install-recommends gcc libc6-dev
rm -rf /var/lib/apt/lists/*
pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" '.[itk,object]'
