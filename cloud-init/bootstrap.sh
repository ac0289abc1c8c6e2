#!/bin/bash
# From user-data to the driver: downloads the payload, checks it, unpacks it and starts the driver. Reports its own
# failures; after that the driver reports. All data comes from parameters.json.
set -euo pipefail
export LC_ALL=C.UTF-8 HOME=/root
RUN=/run/transcribe-bake
SOURCE=/srv/transcribe
step=parameters

value() { # value KEY...: one parameter as text, nothing if it is not there
  python3 - "$RUN/parameters.json" "$@" <<'PY'
import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]:
    value = (value or {}).get(key)
print("" if value is None else value)
PY
}

report() { # report REASON: a failure report, on the console as well, and the end of the machine
  python3 - "$RUN/parameters.json" "$1" >$RUN/report.json <<'PY' || true
import json, sys
parameters = json.load(open(sys.argv[1]))
same = {key: parameters.get(key) for key in ("build_id", "nonce", "mode")}
digest = (parameters.get("payload") or {}).get("sha256")
print(json.dumps({"schema": 1, **same, "payload_sha256": digest, "verdict": "failure", "reason": sys.argv[2]}))
PY
  journalctl --unit=transcribe-bake --no-pager >$RUN/log.txt 2>&1 || true
  send log_url $RUN/log.txt
  send report_url $RUN/report.json
  echo "TRANSCRIBE-BAKE $(value build_id) $(value nonce) failure $(sha256sum <$RUN/report.json | cut -d' ' -f1)" >/dev/console
  sync
  if [ "$(value keep)" != True ]; then systemctl --no-block poweroff; fi # one that is kept ends at its deadline
}

send() { # the address stays out of the process list
  printf 'url = "%s"\n' "$(value "$1")" |
    curl --config - --silent --show-error --fail --retry 5 --retry-connrefused --max-time 60 --upload-file "$2" || true
}

ended() {
  local code=$?
  if [ "$code" -ne 0 ]; then report "bootstrap: $step failed (exit code $code)"; fi
}
trap ended EXIT
trap 'exit 143' TERM # the deadline

if [ "$(value mode)" = bake ]; then
  step='downloading the payload'
  printf 'url = "%s"\n' "$(value payload url)" |
    curl --config - --silent --show-error --fail --location --retry 5 --retry-connrefused --max-time 300 --output $RUN/payload.tar
  step='the size of the payload is not what was announced; checking it'
  test "$(stat --format=%s $RUN/payload.tar)" = "$(value payload bytes)"
  step='the digest of the payload is not what was announced; checking it'
  echo "$(value payload sha256)  $RUN/payload.tar" | sha256sum --check --quiet
  step='unpacking the payload'
  rm -rf $SOURCE
  install --directory --mode=0755 $SOURCE
  tar --extract --no-same-owner --file=$RUN/payload.tar --directory=$SOURCE
  value payload sha256 >$SOURCE/payload.sha256
  rm $RUN/payload.tar
fi
step='starting the driver'
test -f $SOURCE/salt/driver/main.py
trap - EXIT
exec python3 $SOURCE/salt/driver/main.py --parameters $RUN/parameters.json
