#!/bin/bash
# From user-data to the driver: fetches this machine's signed addresses and the payload, checks it, unpacks it, and
# watches over the driver. Whatever fails here, or kills the driver, is reported, or at least said on the console, and
# ends the machine. What it is to do is in parameters.json; a Python as old as 3.6 must be able to say so.
set -euo pipefail
export LC_ALL=C.UTF-8 HOME=/root
RUN=/run/transcribe-bake
SOURCE=/srv/transcribe
CONSOLE=/dev/console
step=parameters

say() { # say TEXT: a line of its own on the console, for the launcher
  printf '\r\ntranscribe-bake: %s\r\n' "$1" >>$CONSOLE || true
}

value() { # value FILE KEY...: one value as text, nothing if it is not there
  python3 - "$RUN/$1.json" "${@:2}" <<'PY'
import json, os, sys
value = json.load(open(sys.argv[1])) if os.path.exists(sys.argv[1]) else None
for key in sys.argv[2:]:
    value = (value or {}).get(key)
if isinstance(value, dict):  # headers, as curl's configuration has them
    value = "".join(f'header = "{name}: {value[name]}"\n' for name in value)
print("" if value is None else value)
PY
}

fetch() { # fetch ADDRESS FILE SECONDS; the address stays out of the process list
  if printf 'url = "%s"\n' "$1" |
    curl --config - --silent --show-error --fail --location --connect-timeout 5 --retry 8 --retry-connrefused \
      --retry-max-time 40 --max-time "$3" --output "$2" 2>$RUN/error; then return 0; fi
  failure=$(tail -n 1 $RUN/error)
  return 1
}

send() { # send NAME FILE: upload to one of the signed addresses
  local address
  address=$(value addresses "$1_url")
  if [ -z "$address" ]; then return 0; fi
  { value addresses upload_headers && printf 'url = "%s"\n' "$address"; } |
    curl --config - --silent --show-error --fail --retry 5 --retry-connrefused --max-time 60 --upload-file "$2" || true
}

report() { # report REASON: a failure report, on the console as well, and the end of the machine
  say "$1"
  python3 - "$RUN/parameters.json" "$1" >$RUN/report.json <<'PY' || true
import json, sys
parameters = json.load(open(sys.argv[1]))
same = {key: parameters.get(key) for key in ("build_id", "nonce", "mode")}
digest = (parameters.get("payload") or {}).get("sha256")
print(json.dumps({"schema": 1, "payload_sha256": digest, "verdict": "failure", "reason": sys.argv[2], **same}))
PY
  journalctl --unit=transcribe-bake --no-pager >$RUN/log.txt 2>&1 || true
  send log $RUN/log.txt
  send report $RUN/report.json
  printf '\r\nTRANSCRIBE-BAKE %s %s failure %s\r\n' "$(value parameters build_id)" "$(value parameters nonce)" \
    "$(sha256sum <$RUN/report.json | cut -d' ' -f1)" >>$CONSOLE
  sync
  if [ "$(value parameters keep)" != True ]; then systemctl --no-block poweroff; fi # one that is kept has its deadline
}

ended() {
  local code=$?
  if [ -e $RUN/told ]; then return 0; fi # the driver has reported
  if [ -e $RUN/deadline ]; then
    report "the machine's deadline has passed; $step"
  elif [ "$code" -eq 143 ]; then
    report "somebody on the machine stopped the bake (SIGTERM); $step"
  else
    report "bootstrap: $step failed (exit code $code)${failure:+: $failure}"
  fi
}
stopped() { # by the deadline, or by somebody: the driver tells it, if it runs
  if [ -n "${driver:-}" ]; then
    kill -TERM "$driver" 2>/dev/null || true
    wait "$driver" 2>/dev/null || true
  fi
  exit 143
}
trap ended EXIT
trap stopped TERM

step='asking for the system and its Python'
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
system=$(sed -n 's/^PRETTY_NAME="\(.*\)"$/\1/p' /etc/os-release)
say "$system, Python $python"
step="looking for Python 3.11 or newer in the source image, which has $system with $python; name another in [source]:"
test "${python#3.}" -ge 11

step='fetching the signed addresses from S3 (is there a way out of this subnet?)'
fetch "$(value parameters addresses_url)" $RUN/addresses.json 55
if [ "$(value parameters mode)" != verify ]; then
  step='downloading the payload'
  fetch "$(value addresses payload_url)" $RUN/payload.tar 300
  step='the size of the payload is not what was announced; checking it'
  test "$(stat --format=%s $RUN/payload.tar)" = "$(value parameters payload bytes)"
  step='the digest of the payload is not what was announced; checking it'
  echo "$(value parameters payload sha256)  $RUN/payload.tar" | sha256sum --check --quiet
  step='unpacking the payload'
  rm -rf $SOURCE
  install --directory --mode=0755 $SOURCE
  tar --extract --no-same-owner --file=$RUN/payload.tar --directory=$SOURCE
  value parameters payload sha256 >$SOURCE/payload.sha256
  rm $RUN/payload.tar
fi
step='starting the driver'
test -f $SOURCE/salt/driver/main.py
step='the work of the driver; it died,'
python3 $SOURCE/salt/driver/main.py --parameters $RUN/parameters.json 2> >(tee $RUN/error >&2) &
driver=$!
code=0
wait "$driver" || code=$?
failure="exit code $code $(tail -n 1 $RUN/error)"
if [ "$code" -eq 137 ]; then failure='exit code 137: killed, most often for want of memory'; fi
test "$code" -eq 0
