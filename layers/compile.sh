#!/bin/sh
# compile.sh <3.x> <folder>: byte code beside the sources, valid wherever the folder is unpacked (PEP 552, unchecked).
# A function can write nothing beside its layers, so without it every cold start compiles every module again.
"python$1" -c "" 2>/dev/null || { echo "no python$1 here: layer without byte code, slower cold starts" >&2; exit 0; }
exec "python$1" -m compileall -q -f --invalidation-mode unchecked-hash "$2"
