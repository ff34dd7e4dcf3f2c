#!/bin/sh
# run-linear.sh TEST CEPH-DEV: with the cluster of tests/ceph-run, whose OSD it stops now and then.
exec "$1" "$([ "${STRATOFS_LONG:-}" ] && echo 60 || echo 12)" "$("$2" pid osd.0 "$CEPH_DIR")"
